//! Reads everything there is, and says what is wrong with it.

use std::{collections::BTreeMap, ops::ControlFlow};

use proto::{
    ids::{AtxId, NodeId},
    poet::PoetProofMessage,
};

use crate::{
    StoreError,
    atxs::{Atx, Share, atx_index, id_at, read_wire, share_index},
    engine::{Range, Read},
    guard,
    marriages::{Marriage, marriage_index},
    poets::{read_malicious, read_reference, reference, round_key},
    schema::{Database, Family, body, record},
};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries read, per column family.
    pub entries: BTreeMap<Family, u64>,
    /// What is wrong, in words, at most [`MOST_FAULTS`].
    pub faults: Vec<String>,
}

/// After so many, the rest is no news.
pub const MOST_FAULTS: usize = 100;

/// Reads a whole database as it is at one moment: every record must be readable, every index complete and without more. Damaged
/// files end the reading of a column family, not of the others. Stops early when `stopped` says so.
pub fn check(view: &dyn Read, database: Database, stopped: &dyn Fn() -> bool) -> Report {
    let mut report = Report::default();
    // how many entries the indexes should have
    let indexes =
        [Family::AtxEpoch, Family::AtxHeight, Family::AtxSmesher, Family::ShareEpoch, Family::ShareAfter, Family::Married];
    let mut expected: BTreeMap<Family, u64> = indexes.map(|family| (family, 0)).into();
    for family in database.families() {
        let mut count = 0;
        let read = view.scan(family, Range::all(), &mut |key, value| {
            count += 1;
            let fault = match family.fault(key) {
                Some(fault) => Some(StoreError::damaged(family, key, fault)),
                None => check_entry(view, family, key, value, &mut expected).err(),
            };
            report.faults.extend(fault.map(|fault| fault.to_string()));
            let more = report.faults.len() < MOST_FAULTS && !stopped();
            Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        report.faults.extend(read.err().map(|e| format!("{}: {e}", family.name())));
        report.entries.insert(family, count);
    }
    if report.faults.is_empty() && !stopped() {
        for (family, expected) in expected {
            let found = report.entries.get(&family).copied().unwrap_or_default();
            if found != expected {
                report.faults.push(format!("{} has {found} entries where the records make {expected}", family.name()));
            }
        }
    }
    report.faults.truncate(MOST_FAULTS);
    report
}

fn check_entry(
    view: &dyn Read,
    family: Family,
    key: &[u8],
    value: &[u8],
    expected: &mut BTreeMap<Family, u64>,
) -> Result<(), StoreError> {
    let damaged = |what: &str| StoreError::damaged(family, key, what);
    let mut indexed = |index: Vec<(Family, Vec<u8>)>| -> Result<(), StoreError> {
        for (family, key) in index {
            *expected.entry(family).or_default() += 1;
            view.get(family, &key)?.ok_or_else(|| damaged(&format!("its entry in {} is missing", family.name())))?;
        }
        Ok(())
    };
    let known = |id: &[u8]| {
        let row = view.get(Family::Atx, id)?;
        row.map(drop).ok_or_else(|| damaged("there is no activation of this id"))
    };
    match family {
        Family::Meta => {}
        Family::Atx => {
            let atx: Atx = record(family, key, value)?;
            indexed(atx_index(&AtxId(id_at(family, key, 0)?), &atx))?;
        }
        Family::AtxBlob => {
            read_wire(key, value)?;
            known(key)?;
        }
        Family::Share => {
            let share: Share = record(family, key, value)?;
            let (id, identity) = (AtxId(id_at(family, key, 0)?), NodeId(id_at(family, key, 32)?));
            known(id.as_bytes())?;
            indexed(share_index(&id, &identity, &share))?;
        }
        Family::Marriage => {
            let marriage: Marriage = record(family, key, value)?;
            known(marriage.atx.as_bytes())?;
            indexed(vec![marriage_index(&NodeId(id_at(family, key, 0)?), &marriage)])?;
        }
        Family::AtxEpoch | Family::AtxHeight | Family::AtxSmesher | Family::ShareEpoch | Family::ShareAfter | Family::Married => {
            // that there are not too many is seen by their number
            if !value.is_empty() {
                return Err(damaged("an index entry with a value"));
            }
        }
        Family::Malicious => drop(read_malicious(key, value)?),
        Family::Poet => {
            let message: PoetProofMessage = record(family, key, value)?;
            if reference(&message)? != key {
                return Err(damaged("another proof than the key says"));
            }
            let round = round_key(&message);
            view.get(Family::PoetRound, &round)?.ok_or_else(|| damaged("its round is missing"))?;
        }
        Family::PoetRound => {
            let reference = read_reference(key, value)?;
            view.get(Family::Poet, &reference)?.ok_or_else(|| damaged("the proof it names is missing"))?;
        }
        Family::Signed => {
            guard::Slot::parse(key).ok_or_else(|| damaged("no slot has this key"))?;
            guard::digests(key, value)?;
        }
        Family::Barred => drop(guard::read_bar(key, value)?),
        // what they hold is known to who writes them
        Family::InitialPost
        | Family::Challenge
        | Family::Registration
        | Family::Nipost
        | Family::Assembled
        | Family::SignedAtx
        | Family::PoetCertificate
        | Family::ActiveSet => drop(body(family, key, value)?),
    }
    Ok(())
}
