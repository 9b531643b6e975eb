//! Databases, column families, key encodings and versions. `docs/storage.md` holds the same as a table; a test keeps it true.
//!
//! Integers in keys are big-endian, so that keys sort as numbers do. A value begins with a byte that says in which version of
//! its encoding it is written.

use proto::scale::{self, Decode, Encode};

use crate::{
    StoreError,
    engine::{Batch, Durability, Engine},
};

/// A database of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Database {
    /// What the network knows: it can be wiped and fetched again.
    State,
    /// What only this node knows, its signing history above all: losing it is dangerous.
    Local,
}

impl Database {
    /// Both.
    pub const ALL: [Self; 2] = [Self::State, Self::Local];

    /// Its folder in the data directory.
    pub fn folder(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Local => "local",
        }
    }

    /// Its column families.
    pub fn families(self) -> Vec<Family> {
        Family::ALL.into_iter().filter(|family| *family == Family::Meta || family.database() == self).collect()
    }

    /// Whether it has a column family of this name.
    pub fn knows(self, name: &str) -> bool {
        self.families().iter().any(|family| family.name() == name)
    }
}

/// A part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// So many bytes.
    Bytes(&'static str, usize),
    /// A number of four bytes, big-endian.
    Number(&'static str),
    /// All that follows, at most so many bytes.
    Rest(&'static str, usize),
}

macro_rules! families {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal in $database:ident: [$($part:expr),+] => $value:literal;)+) => {
        /// A column family.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Family {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Family {
            /// All of them.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Its name in the database.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The database it belongs to; [`Family::Meta`] is in both.
            pub const fn database(self) -> Database {
                match self { $(Self::$variant => Database::$database,)+ }
            }

            /// What its keys consist of.
            pub const fn key(self) -> &'static [Part] {
                match self { $(Self::$variant => &[$($part),+],)+ }
            }

            /// What its values hold after the version byte.
            pub const fn value(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }

            /// What it is for.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

families! {
    /// What a database says about itself; without version byte.
    Meta = "meta" in State: [Part::Rest("name", 32)] => "`schema`: format, 4 bytes; `binding`: JSON; `directory`: id 16, inode 8; `married`: identities ever married, 8";
    /// Activations: what is known of them without reading their bytes.
    Atx = "atx" in State: [Part::Bytes("id", 32)] => "`atxs::Atx`";
    /// Their bytes as they arrived; none for those of a checkpoint.
    AtxBlob = "atx_blob" in State: [Part::Bytes("id", 32)] => "version of activations 1, bytes";
    /// Index: the activations of an epoch.
    AtxEpoch = "atx_epoch" in State: [Part::Number("publish epoch"), Part::Bytes("id", 32)] => "";
    /// Index: those of an epoch, the highest first.
    AtxHeight = "atx_height" in State: [Part::Number("publish epoch"), Part::Bytes("~height", 8), Part::Bytes("id", 32)] => "";
    /// Index: those of a publisher, the latest first.
    AtxSmesher = "atx_smesher" in State: [Part::Bytes("smesher", 32), Part::Number("~publish epoch"), Part::Bytes("~received", 8), Part::Bytes("id", 32)] => "";
    /// What an activation says of one identity in it.
    Share = "share" in State: [Part::Bytes("id", 32), Part::Bytes("identity", 32)] => "`atxs::Share`";
    /// Index: the shares of an identity, the latest first.
    ShareEpoch = "share_epoch" in State: [Part::Bytes("identity", 32), Part::Number("~publish epoch"), Part::Bytes("id", 32)] => "";
    /// Index: what an identity made follow an activation; zeros where it follows none.
    ShareAfter = "share_after" in State: [Part::Bytes("identity", 32), Part::Bytes("previous", 32), Part::Bytes("id", 32)] => "";
    /// Marriages of identities.
    Marriage = "marriage" in State: [Part::Bytes("identity", 32)] => "`marriages::Marriage`";
    /// Index: the identities of a set, in the order in which they were married.
    Married = "married" in State: [Part::Bytes("set", 8), Part::Bytes("number", 8), Part::Bytes("identity", 32)] => "";
    /// Identities proven malicious.
    Malicious = "malicious" in State: [Part::Bytes("identity", 32)] => "received 8, proof";
    /// Proofs of elapsed time with their origin.
    Poet = "poet" in State: [Part::Bytes("reference", 32)] => "`proto::poet::PoetProofMessage`";
    /// Index: the proof of a server's round.
    PoetRound = "poet_round" in State: [Part::Bytes("BLAKE3(server)", 32), Part::Rest("round", 32)] => "reference 32";
    /// What was signed: the guard's history.
    Signed = "signed" in Local: [Part::Bytes("identity", 32), Part::Bytes("kind", 1), Part::Rest("slot", 32)] => "digests of 32 bytes, ascending; more than one bar the slot";
    /// Layers and epochs for which an identity signs no more.
    Barred = "barred" in Local: [Part::Bytes("identity", 32)] => "epoch 4, layer 4: these and all before";
    /// Initial proofs of space.
    InitialPost = "initial_post" in Local: [Part::Bytes("identity", 32)] => "`activation::builder::InitialPost`";
    /// What identities have committed themselves to for an epoch.
    Challenge = "challenge" in Local: [Part::Bytes("identity", 32)] => "`activation::builder::Challenge`";
    /// PoET servers that have taken the challenge.
    Registration = "registration" in Local: [Part::Bytes("identity", 32), Part::Bytes("BLAKE3(server)", 32)] => "`activation::builder::Registration`";
    /// Proofs of space and time for the challenge.
    Nipost = "nipost" in Local: [Part::Bytes("identity", 32)] => "`activation::builder::Nipost`";
    /// Activations about to be signed.
    Assembled = "assembled" in Local: [Part::Bytes("identity", 32)] => "version of activations 1, the activation without its signature";
    /// Activations about to be published.
    SignedAtx = "signed_atx" in Local: [Part::Bytes("identity", 32)] => "id 32, version of activations 1, bytes";
    /// Certificates for PoET servers.
    PoetCertificate = "poet_certificate" in Local: [Part::Bytes("identity", 32), Part::Bytes("certifier", 32)] => "`activation::rows::Certificate`";
    /// Active sets that this node prepared.
    ActiveSet = "active_set" in Local: [Part::Number("target epoch")] => "`activation::grades::Prepared`";
}

impl Family {
    /// Why this is no key of the family.
    pub fn fault(self, key: &[u8]) -> Option<String> {
        let mut left = key.len();
        for part in self.key() {
            let need = match part {
                Part::Bytes(_, bytes) => *bytes,
                Part::Number(_) => 4,
                Part::Rest(_, most) if left <= *most => left,
                Part::Rest(name, most) => return Some(format!("{name} has {left} bytes, at most {most} are possible")),
            };
            left = match left.checked_sub(need) {
                Some(left) => left,
                None => return Some(format!("a key of {} bytes is too short", key.len())),
            };
        }
        (left > 0).then(|| format!("a key of {} bytes is too long", key.len()))
    }
}

/// One step of a database from a format to the next: adds to the batch what changes.
pub type Migration = fn(Database, &dyn Engine, &mut Batch) -> Result<(), StoreError>;

/// The format of a database, and how older ones become it.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The format that this program writes; the first is 1.
    pub version: u32,
    /// `steps[n]` leads from format `oldest + n` to the next.
    pub steps: &'static [Migration],
}

/// Format 2 has more column families, which opening has made; nothing that was there changes.
#[expect(clippy::unnecessary_wraps, reason = "other steps may fail")]
fn new_families(_: Database, _: &dyn Engine, _: &mut Batch) -> Result<(), StoreError> {
    Ok(())
}

impl Schema {
    /// The present format.
    pub const NOW: Self = Self { version: 2, steps: &[new_families] };

    /// Brings a database to this format; each step is one atomic batch. Says which format it had.
    pub fn migrate(&self, engine: &dyn Engine, database: Database, found: u32) -> Result<(), StoreError> {
        if found > self.version {
            return Err(StoreError::Newer { database, found, known: self.version });
        }
        let oldest = self.version - self.steps.len() as u32;
        let first = found.checked_sub(oldest).ok_or(StoreError::NoMigration { database, found })?;
        for (step, format) in self.steps[first as usize..].iter().zip(found + 1..) {
            let mut batch = Batch::default();
            step(database, engine, &mut batch)?;
            batch.put(Family::Meta, SCHEMA, format.to_be_bytes());
            engine.write(&batch, Durability::Power)?;
        }
        Ok(())
    }
}

/// The key of the format.
pub(crate) const SCHEMA: &[u8] = b"schema";
/// The key of the network's genesis and parameters.
pub(crate) const BINDING: &[u8] = b"binding";
/// The key of the data directory's id.
pub(crate) const DIRECTORY: &[u8] = b"directory";

/// The key of the count of identities ever married.
pub(crate) const MARRIED: &[u8] = b"married";

/// The version byte in front of the values of today.
pub const VALUE_VERSION: u8 = 1;

/// What follows the version byte of a value.
pub fn body<'a>(family: Family, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    match value {
        [VALUE_VERSION, body @ ..] => Ok(body),
        [version, ..] => Err(StoreError::damaged(family, key, format!("a value of version {version}"))),
        [] => Err(StoreError::damaged(family, key, "an empty value")),
    }
}

/// The SCALE record after the version byte.
pub fn record<T: Decode>(family: Family, key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    scale::decode(body(family, key, value)?).map_err(StoreError::decode(family, key))
}

/// The value that holds a SCALE record.
pub fn value<T: Encode>(record: &T) -> Result<Vec<u8>, StoreError> {
    Ok([&[VALUE_VERSION][..], &scale::encode(record)?].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The column families as the table of `docs/storage.md`.
    fn table() -> String {
        let part = |part: &Part| match part {
            Part::Bytes(name, bytes) => format!("{name} {bytes}"),
            Part::Number(name) => format!("{name} 4"),
            Part::Rest(name, most) => format!("{name} up to {most}"),
        };
        let row = |family: Family| {
            let database = if family == Family::Meta { "both" } else { family.database().folder() };
            let key: Vec<String> = family.key().iter().map(part).collect();
            format!("| {database} | `{}` | {} | {} |{} |\n", family.name(), key.join(", "), family.value(), family.about())
        };
        Family::ALL.into_iter().map(row).collect()
    }

    /// `UPDATE_DOCS=1` writes it again.
    #[test]
    fn the_table_of_column_families_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/storage.md");
        let text = std::fs::read_to_string(path).unwrap();
        let head = text.find("|---|---|---|---|---|\n").unwrap() + "|---|---|---|---|---|\n".len();
        let fresh = format!("{}{}", &text[..head], table());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &fresh).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == fresh,
            "run the tests once with UPDATE_DOCS=1 and commit docs/storage.md"
        );
    }

    #[test]
    fn names_are_unique_and_keys_have_their_length() {
        let mut names: Vec<_> = Family::ALL.map(Family::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Family::ALL.len());
        assert!(Database::Local.knows("signed") && Database::Local.knows("meta") && !Database::Local.knows("atx"));
        for (family, length, sound) in [
            (Family::Atx, 31, false),
            (Family::Atx, 32, true),
            (Family::Atx, 33, false),
            (Family::AtxSmesher, 76, true),
            (Family::AtxSmesher, 75, false),
            (Family::Signed, 33, true),
            (Family::Signed, 65, true),
            (Family::Signed, 66, false),
            (Family::Signed, 32, false),
        ] {
            assert_eq!(family.fault(&vec![0; length]).is_none(), sound, "{} {length}", family.name());
        }
    }
}
