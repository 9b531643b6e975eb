//! `decode`: objects of the network as JSON.

use std::{io::Read as _, path::PathBuf};

use clap::Args;
use proto::objects::{KINDS, decode_any};

use super::io_error;
use crate::{cli::print, error::Error};

/// Show an object of the network as JSON
#[derive(Debug, Args)]
pub(crate) struct Decode {
    /// Kind of the object, e.g. atx-v1
    #[arg(required_unless_present = "list")]
    kind: Option<String>,
    /// The object in hex; from standard input if neither this nor a file is given
    hex: Option<String>,
    /// Read the object from a file, as it is
    #[arg(long, value_name = "FILE", conflicts_with = "hex")]
    file: Option<PathBuf>,
    /// List all kinds
    #[arg(long)]
    list: bool,
}

/// The largest object that is read.
const MOST: u64 = 512 << 20;

impl Decode {
    pub(crate) fn run(self) -> Result<(), Error> {
        if self.list {
            for kind in KINDS {
                print(format_args!("{:<24} {}", kind.name, kind.about));
            }
            return Ok(());
        }
        let bytes = match (&self.file, &self.hex) {
            (Some(path), _) => {
                let mut bytes = Vec::new();
                std::fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)).map_err(io_error(path))?;
                bytes
            }
            (None, Some(text)) => from_hex(text)?,
            (None, None) => {
                let mut text = String::new();
                let read = std::io::stdin().lock().take(2 * MOST).read_to_string(&mut text);
                read.map_err(io_error("standard input".as_ref()))?;
                from_hex(&text)?
            }
        };
        let shown = decode_any(&self.kind.unwrap_or_default(), &bytes)?;
        print(format_args!("{shown:#}"));
        Ok(())
    }
}

fn from_hex(text: &str) -> Result<Vec<u8>, Error> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let text = text.strip_prefix("0x").unwrap_or(&text);
    hex::decode(text).map_err(|e| Error::Usage(format!("the object is not hex: {e}")))
}
