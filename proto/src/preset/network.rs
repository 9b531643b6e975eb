//! What a network consists of. Durations are [`Span`]s, counts of layers and epochs plain numbers, weights and balances as the
//! protocol counts them.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    genesis::{Genesis, UnixSeconds},
    post::{Params, ScryptN},
    span::Span,
    units::SpaceUnits,
};

/// A network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// Time, sizes and what belongs nowhere else.
    pub main: Main,
    /// What the network is born with.
    pub genesis: GenesisParams,
    /// Proofs of space.
    pub post: PostParams,
    /// Proofs of elapsed time.
    pub poet: PoetParams,
    /// How nodes ask for certificates.
    pub certifier: Certifier,
    /// Labels and proving.
    pub smeshing: Smeshing,
    /// Votes.
    pub tortoise: Tortoise,
    /// Agreement on a layer's proposals.
    pub hare3: Hare,
    /// Its successor, off in every known network.
    pub hare4: Hare,
    /// Who may speak in it.
    pub hare_eligibility: HareEligibility,
    /// Certificates of blocks.
    pub certificate: Certificate,
    /// The random value of an epoch.
    pub beacon: Beacon,
    /// How a smesher prepares the set of active activations.
    pub active_set_preparation: ActiveSetPreparation,
    /// Catching up with the network.
    pub syncer: Syncer,
    /// The fallback for beacons and active sets.
    pub bootstrap: Bootstrap,
    /// Peers.
    pub p2p: P2p,
}

/// Time, sizes and what belongs nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Main {
    /// Length of a layer.
    pub layer_duration: Span,
    /// Layers in an epoch.
    pub layers_per_epoch: u32,
    /// Expected proposals in a layer.
    pub layer_average_size: u32,
    /// Most transactions in a proposal.
    pub txs_per_proposal: u32,
    /// Most gas in a block.
    #[serde(with = "large")]
    pub block_gas_limit: u64,
    /// Percentage of equal mesh hashes from which on infeasible transactions are filtered.
    pub optimistic_filtering_threshold: u32,
    /// PoET leaves in a tick.
    pub tick_size: u64,
    /// What addresses begin with.
    pub network_hrp: String,
    /// How long before an epoch an activation must have arrived to be graded good.
    pub atx_grade_delay: Span,
    /// Activations received longer ago than this are taken for valid without full verification.
    pub post_valid_delay: Span,
    /// How often the own activation is sent again; zero for never.
    pub regossip_atx_interval: Span,
    /// Percentage of good activations from which on they make the active set.
    pub miner_good_atxs_percent: u32,
    /// Epoch from which on old active sets are deleted.
    pub prune_activesets_from: u32,
    /// PoET servers.
    pub poet_servers: Vec<PoetServer>,
    /// Version of activations from a publish epoch on; 1 before the first (types.md section 4.1).
    #[serde(with = "epochs")]
    pub atx_versions: BTreeMap<u32, u8>,
}

/// A PoET server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PoetServer {
    /// Its URL; `http://` may be left out.
    pub address: String,
    /// Its public key in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pubkey: Option<Base64Key>,
}

/// What the network is born with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GenesisParams {
    /// When; `None` where every start is a birth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genesis_time: Option<UnixSeconds>,
    /// Free text, 1 to 255 bytes.
    pub genesis_extra_data: String,
    /// Balances in smidge by address.
    #[serde(with = "large_map")]
    pub accounts: BTreeMap<String, u64>,
}

/// Proofs of space (post.md section 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostParams {
    /// Fewest units an identity may declare.
    #[serde(rename = "post-min-numunits")]
    pub min_numunits: u32,
    /// Most units an identity may declare.
    #[serde(rename = "post-max-numunits")]
    pub max_numunits: u32,
    /// Labels in one space unit.
    #[serde(rename = "post-labels-per-unit")]
    pub labels_per_unit: u64,
    /// Expected number of good labels per nonce.
    #[serde(rename = "post-k1")]
    pub k1: u32,
    /// Good labels a proof must show.
    #[serde(rename = "post-k2")]
    pub k2: u32,
    /// Labels of a proof that a node checks.
    #[serde(rename = "post-k3")]
    pub k3: u32,
    /// k2pow threshold for one unit, big-endian.
    #[serde(rename = "post-pow-difficulty")]
    pub pow_difficulty: HexBytes<32>,
}

/// Proofs of elapsed time (activation.md sections 1 and 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PoetParams {
    /// From the start of an epoch to the start of the round in it.
    pub phase_shift: Span,
    /// From the end of a round to the start of the next.
    pub cycle_gap: Span,
    /// How long before a round a node begins to register.
    pub grace_period: Span,
    /// How long it may look for a positioning activation; zero for as long as it takes.
    pub positioning_atx_selection_timeout: Span,
    /// How long a request for a proof may take.
    pub poet_request_timeout: Span,
    /// Between two attempts.
    pub retry_delay: Span,
    /// Attempts.
    pub retry_max: u32,
    /// How long a server's description is kept.
    pub info_cache_ttl: Span,
    /// How long a server's proof-of-work parameters are kept.
    pub pow_params_cache_ttl: Span,
    /// Proofs kept in memory.
    pub poet_proofs_cache: u32,
}

/// How nodes ask for certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certifier {
    /// As a client.
    pub client: CertifierClient,
}

/// How nodes ask for certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CertifierClient {
    /// The first wait between two attempts; it doubles.
    pub retry_delay: Span,
    /// The longest wait.
    pub max_retry_delay: Span,
    /// Attempts after the first.
    pub max_retries: u32,
}

/// Labels and proving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smeshing {
    /// Labels.
    #[serde(rename = "smeshing-opts")]
    pub setup: SetupOpts,
    /// Proving.
    #[serde(rename = "smeshing-proving-opts")]
    pub proving: ProvingOpts,
}

/// Labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupOpts {
    /// Cost of the label function.
    #[serde(rename = "smeshing-opts-scrypt")]
    pub scrypt: Scrypt,
}

/// Cost of the label function (post.md section 3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrypt {
    /// N.
    #[serde(rename = "scryptn")]
    pub n: ScryptN,
    /// r, always 1.
    #[serde(rename = "scryptr")]
    pub r: u32,
    /// p, always 1.
    #[serde(rename = "scryptp")]
    pub p: u32,
}

/// Proving: what suits the network, nothing it checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvingOpts {
    /// Nonces tried in one pass over the data.
    #[serde(rename = "smeshing-opts-proving-nonces")]
    pub nonces: u32,
    /// `fast` or `light`.
    #[serde(rename = "smeshing-opts-proving-randomx-mode")]
    pub randomx_mode: String,
}

/// Votes (consensus.md section 12).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tortoise {
    /// Layers for which the hare's output counts.
    #[serde(rename = "tortoise-hdist")]
    pub hdist: u32,
    /// Layers to wait for the hare's output.
    #[serde(rename = "tortoise-zdist")]
    pub zdist: u32,
    /// Layers kept.
    #[serde(rename = "tortoise-window-size")]
    pub window_size: u32,
    /// Layers kept while old layers are looked at.
    #[serde(rename = "historical-window-size")]
    pub historical_window_size: Vec<WindowInterval>,
    /// Most differences from the base ballot.
    #[serde(rename = "tortoise-max-exceptions")]
    pub max_exceptions: u32,
    /// Layers for which a ballot with a bad beacon does not count; 0 for an epoch.
    #[serde(rename = "tortoise-delay-layers")]
    pub bad_beacon_delay: u32,
    /// Least weight of an active set, by ascending target epoch.
    #[serde(rename = "minimal-active-set-weight")]
    pub minimal_active_set_weight: Vec<MinimalWeight>,
}

/// Layers kept while old layers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowInterval {
    /// The first of these layers.
    pub start: u32,
    /// The last of these layers.
    pub end: u32,
    /// Layers kept.
    pub window: u32,
}

/// Least weight of an active set from an epoch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinimalWeight {
    /// The first epoch.
    pub epoch: u32,
    /// The weight.
    pub weight: u64,
}

/// Agreement on a layer's proposals (consensus.md section 7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hare {
    /// Whether it runs at all.
    pub enable: bool,
    /// The first layer.
    pub enable_layer: u32,
    /// The first layer without it.
    pub disable_layer: u32,
    /// Expected votes of a round.
    pub committee: u16,
    /// A committee of another size from some layer on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committee_upgrade: Option<CommitteeUpgrade>,
    /// Expected proposers.
    pub leaders: u16,
    /// Iterations after which it gives up.
    pub iterations_limit: u8,
    /// From the start of the layer to the first round.
    pub preround_delay: Span,
    /// Length of a round.
    pub round_duration: Span,
    /// The topic of its messages.
    pub protocolname: String,
}

/// A committee of another size from some layer on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitteeUpgrade {
    /// The first layer.
    pub layer: u32,
    /// Expected votes of a round.
    pub size: u16,
}

/// Who may speak in the hare (consensus.md section 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HareEligibility {
    /// Layers of an epoch in which the active set of the previous one counts.
    #[serde(rename = "eligibility-confidence-param")]
    pub confidence_param: u32,
}

/// Certificates of blocks (consensus.md section 11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Certificate {
    /// Expected signers.
    pub committee_size: u32,
}

/// The random value of an epoch (consensus.md section 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// Voting rounds; 0 turns the protocol off.
    #[serde(rename = "beacon-rounds-number")]
    pub rounds_number: u32,
    /// Security parameter of the proposals' threshold.
    #[serde(rename = "beacon-kappa")]
    pub kappa: u32,
    /// Share of dishonest space.
    #[serde(rename = "beacon-q")]
    pub q: Ratio,
    /// Margin of votes that decides.
    #[serde(rename = "beacon-theta")]
    pub theta: Ratio,
    /// How long before the epoch proposals are taken.
    #[serde(rename = "beacon-grace-period-duration")]
    pub grace_period: Span,
    /// How long proposals are made.
    #[serde(rename = "beacon-proposal-duration")]
    pub proposal: Span,
    /// Length of the first round of votes.
    #[serde(rename = "beacon-first-voting-round-duration")]
    pub first_voting_round: Span,
    /// Length of the following ones.
    #[serde(rename = "beacon-voting-round-duration")]
    pub voting_round: Span,
    /// Length of a weak coin round.
    #[serde(rename = "beacon-weak-coin-round-duration")]
    pub weak_coin_round: Span,
    /// Most votes in a first message.
    #[serde(rename = "beacon-votes-limit")]
    pub votes_limit: u32,
    /// Weight units of ballots after which their beacon is taken.
    #[serde(rename = "beacon-sync-weight-units")]
    pub sync_weight_units: u32,
}

/// How a smesher prepares the set of active activations (activation.md section 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ActiveSetPreparation {
    /// How long before an epoch it begins.
    pub window: Span,
    /// Between two attempts.
    pub retry_interval: Span,
    /// Attempts.
    pub tries: u32,
}

/// Catching up with the network (p2p-sync.md section 12).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Syncer {
    /// Between two runs.
    pub interval: Span,
    /// How long gossip must have flowed before the node counts as synced.
    pub gossipduration: Span,
    /// Layers behind from which on the node is out of sync.
    pub out_of_sync_threshold: u32,
    /// Share of the epoch after which its activations are fetched.
    pub epochendfraction: f64,
    /// Whether opinions are not compared with those of peers.
    pub disable_mesh_agreement: bool,
    /// Share of an epoch between two counts of votes; 0 for every layer.
    pub tally_votes_frequency: f64,
}

/// The fallback for beacons and active sets (p2p-sync.md section 14).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bootstrap {
    /// Where it is; empty for none.
    pub bootstrap_url: String,
    /// The version of its files.
    pub bootstrap_version: String,
}

/// Peers (p2p-sync.md sections 2 and 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct P2p {
    /// Where to listen, multiaddresses.
    #[serde(deserialize_with = "list")]
    pub listen: Vec<String>,
    /// Peers below which the node looks for more.
    pub min_peers: u32,
    /// Peers kept when there are too many.
    pub low_peers: u32,
    /// Too many.
    pub high_peers: u32,
    /// Where a node first asks for peers, multiaddresses.
    #[serde(deserialize_with = "list")]
    pub bootnodes: Vec<String>,
}

impl Network {
    /// The genesis, where its time is fixed.
    pub fn genesis(&self) -> Option<Genesis> {
        Some(self.genesis_at(self.genesis.genesis_time?))
    }

    /// The genesis of a network that is born at this time.
    pub fn genesis_at(&self, unix_time: UnixSeconds) -> Genesis {
        Genesis { unix_time, extra_data: self.genesis.genesis_extra_data.clone() }
    }

    /// The PoST parameters (post.md section 1).
    pub fn post_params(&self) -> Params {
        let PostParams { min_numunits, max_numunits, labels_per_unit, k1, k2, k3, pow_difficulty } = &self.post;
        Params {
            scrypt_n: self.smeshing.setup.scrypt.n,
            labels_per_unit: *labels_per_unit,
            min_num_units: SpaceUnits(*min_numunits),
            max_num_units: SpaceUnits(*max_numunits),
            k1: *k1,
            k2: *k2,
            k3: *k3,
            pow_difficulty: pow_difficulty.0,
            proving_window: Some(self.poet.cycle_gap.0.as_secs()),
        }
    }

    /// Length of an epoch; `None` when it does not fit.
    pub fn epoch_duration(&self) -> Option<Duration> {
        self.main.layer_duration.0.checked_mul(self.main.layers_per_epoch)
    }

    /// The last layer of epoch 1, after which blocks begin (types.md section 2).
    pub fn effective_genesis_layer(&self) -> u32 {
        self.main.layers_per_epoch.saturating_mul(2).saturating_sub(1)
    }
}

/// Bytes as hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HexBytes<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for HexBytes<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for HexBytes<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut bytes = [0; N];
        let text = String::deserialize(from)?;
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|e| serde::de::Error::custom(format!("expected {} hex digits: {e}", 2 * N)))?;
        Ok(Self(bytes))
    }
}

/// A public key of 32 bytes in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base64Key(pub [u8; 32]);

impl Serialize for Base64Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(from)?).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("expected the base64 of 32 bytes"))
    }
}

/// A rational number, `1/3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Above the line.
    pub numerator: u64,
    /// Below the line, not 0.
    pub denominator: u64,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

impl FromStr for Ratio {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected a rational number such as 1/3";
        let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| expected);
        match (number(numerator)?, number(denominator)?) {
            (_, 0) => Err(expected),
            (numerator, denominator) => Ok(Self { numerator, denominator }),
        }
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Numbers of 64 bits, half of which TOML cannot write: the large ones are written as text.
mod large {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    pub(super) enum Number {
        Number(u64),
        Text(String),
    }

    impl From<u64> for Number {
        fn from(value: u64) -> Self {
            if i64::try_from(value).is_ok() { Self::Number(value) } else { Self::Text(value.to_string()) }
        }
    }

    impl Number {
        pub(super) fn get<E: serde::de::Error>(self) -> Result<u64, E> {
            match self {
                Self::Number(number) => Ok(number),
                Self::Text(text) => text.parse().map_err(|e| E::custom(format!("{text:?} is no number: {e}"))),
            }
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        Number::from(*value).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        Number::deserialize(from)?.get()
    }
}

/// The same for the balances of accounts.
mod large_map {
    use super::{BTreeMap, Deserialize, Deserializer, Serializer, large::Number};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<String, u64>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(map.iter().map(|(key, value)| (key, Number::from(*value))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, u64>, D::Error> {
        let map = BTreeMap::<String, Number>::deserialize(from)?;
        map.into_iter().map(|(key, value)| Ok((key, value.get()?))).collect()
    }
}

/// Keys that are numbers are written as text.
mod epochs {
    use super::{BTreeMap, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<u32, u8>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(map.iter().map(|(key, value)| (key.to_string(), value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<u32, u8>, D::Error> {
        let map = BTreeMap::<String, u8>::deserialize(from)?;
        let epoch = |key: String| key.parse().map_err(|e| serde::de::Error::custom(format!("{key:?} is no epoch: {e}")));
        map.into_iter().map(|(key, version)| Ok((epoch(key)?, version))).collect()
    }
}

/// The official node takes lists as such, and as text with commas.
fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        List(Vec<String>),
    }
    Ok(match Form::deserialize(from)? {
        Form::Text(text) => text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
        Form::List(list) => list,
    })
}
