//! Values that make no network.

use super::{Hare, Network};

impl Network {
    /// What is wrong with the parameters, in words; nothing if the list is empty.
    pub fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, words: String| {
            if wrong {
                faults.push(words);
            }
        };
        let (main, post) = (&self.main, &self.post);
        fault(self.name.is_empty(), "the name is empty".to_owned());
        let extra = self.genesis.genesis_extra_data.len();
        fault(!(1..=255).contains(&extra), format!("genesis-extra-data must have 1 to 255 bytes, not {extra}"));
        fault(main.layer_duration.0.is_zero(), "layer-duration is zero".to_owned());
        fault(main.layers_per_epoch == 0, "layers-per-epoch is zero".to_owned());
        fault(main.tick_size == 0, "tick-size is zero".to_owned());
        fault(main.optimistic_filtering_threshold > 100, "optimistic-filtering-threshold is above 100 percent".to_owned());
        fault(main.miner_good_atxs_percent > 100, "miner-good-atxs-percent is above 100 percent".to_owned());
        let hrp = &main.network_hrp;
        let lower = |c: u8| c.is_ascii_graphic() && !c.is_ascii_uppercase();
        fault(hrp.is_empty() || hrp.len() > 83 || !hrp.bytes().all(lower), format!("network-hrp {hrp:?} begins no address"));
        for (epoch, version) in &main.atx_versions {
            fault(!(1..=2).contains(version), format!("atx-versions: epoch {epoch} has version {version}, known are 1 and 2"));
        }
        fault(!main.atx_versions.values().is_sorted(), "atx-versions: a later epoch has a lower version".to_owned());
        let (min, max) = (post.min_numunits, post.max_numunits);
        fault(min == 0 || min > max, format!("post-min-numunits {min} and post-max-numunits {max} leave nothing"));
        fault(post.labels_per_unit == 0, "post-labels-per-unit is zero".to_owned());
        fault(post.k1 == 0 || post.k2 == 0 || post.k3 == 0, "post-k1, post-k2 and post-k3 must not be zero".to_owned());
        fault(post.pow_difficulty.0 == [0; 32], "post-pow-difficulty is zero".to_owned());
        let scrypt = &self.smeshing.setup.scrypt;
        fault((scrypt.r, scrypt.p) != (1, 1), "scryptr and scryptp must be 1".to_owned());
        let mode = &self.smeshing.proving.randomx_mode;
        fault(mode != "fast" && mode != "light", format!("randomx-mode {mode:?} is neither fast nor light"));
        match self.epoch_duration() {
            None => fault(true, "an epoch is longer than any clock can tell".to_owned()),
            Some(epoch) => {
                let gap = self.poet.cycle_gap.0;
                fault(gap >= epoch, format!("cycle-gap {} is not shorter than an epoch", self.poet.cycle_gap));
            }
        }
        let minimal = &self.tortoise.minimal_active_set_weight;
        fault(!minimal.is_sorted_by_key(|entry| entry.epoch), "minimal-active-set-weight is not sorted by epoch".to_owned());
        let confidence = self.hare_eligibility.confidence_param;
        fault(
            confidence >= main.layers_per_epoch,
            format!("eligibility-confidence-param {confidence} is not less than layers-per-epoch {}", main.layers_per_epoch),
        );
        for (name, hare) in [("hare3", &self.hare3), ("hare4", &self.hare4)].into_iter().filter(|(_, hare)| hare.enable) {
            fault(
                hare.disable_layer <= hare.enable_layer,
                format!("{name}: disable-layer {} is not after enable-layer {}", hare.disable_layer, hare.enable_layer),
            );
            let wait = main.layer_duration.0.saturating_mul(self.tortoise.zdist);
            let late = last_round(hare).is_none_or(|last| last > wait);
            fault(late, format!("{name} may end later than tortoise-zdist layers after its start"));
        }
        for address in self.p2p.listen.iter().chain(&self.p2p.bootnodes) {
            fault(!address.starts_with('/'), format!("{address:?} is no multiaddress"));
        }
        fault(main.poet_servers.iter().any(|server| server.address.is_empty()), "a PoET server has no address".to_owned());
        faults
    }
}

/// When the last hard lock round begins, after the start of the layer (consensus.md section 7.1).
fn last_round(hare: &Hare) -> Option<std::time::Duration> {
    const ROUNDS: u32 = 7;
    let rounds = u32::from(hare.iterations_limit) * ROUNDS;
    hare.preround_delay.0.checked_add(hare.round_duration.0.checked_mul(rounds)?)
}
