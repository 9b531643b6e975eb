use std::num::NonZeroU32;

use proptest::prelude::*;
use proto::{
    eligibility::{self, Grade, SeatsError, Weight},
    fixed::{self, Fixed},
    ids::{AtxId, NodeId, VrfSignature},
    layers::{EpochId, LayersPerEpoch},
    poet::{Leaves, Ticks},
    post,
    units::{Labels, SpaceUnits},
};
use serde_json::Value;

use crate::{array, bytes, list, load, number, number32, text};

fn time(value: &Value) -> i64 {
    text(value).parse().unwrap()
}

fn weight(value: &Value) -> Weight {
    Weight(number(value))
}

fn schedule(value: &Value) -> Vec<(EpochId, Weight)> {
    value.as_array().unwrap().iter().map(|entry| (EpochId(number32(&entry[0])), weight(&entry[1]))).collect()
}

fn layers(value: &Value) -> LayersPerEpoch {
    LayersPerEpoch(NonZeroU32::new(number32(value)).unwrap())
}

#[test]
fn of_the_reference() {
    let file = load!("node/eligibility_go.json");
    for case in list(&file["grades"]) {
        let proof = Some(time(&case["proof_ns"])).filter(|proof| *proof != 0);
        let found = eligibility::grade(time(&case["epoch_start_ns"]), time(&case["delta_ns"]), time(&case["received_ns"]), proof);
        assert_eq!(format!("{found:?}").to_lowercase(), text(&case["grade"]), "{case}");
    }
    assert_eq!(eligibility::grade(0, 0, -1, None), Grade::Good);
    for case in list(&file["min_weight"]) {
        for selected in list(&case["selected"]) {
            let found = eligibility::min_weight(&schedule(&case["schedule"]), EpochId(number32(&selected[0])));
            assert_eq!(found, weight(&selected[1]));
        }
    }
    for case in list(&file["slots"]) {
        let found = eligibility::slots(
            weight(&case["weight"]),
            weight(&case["total_weight"]),
            weight(&case["min_weight"]),
            number32(&case["layer_avg_size"]),
            layers(&case["layers_per_epoch"]),
        );
        assert_eq!(found.is_err(), case.get("error").is_some(), "{case}");
        if let Ok(slots) = found {
            assert_eq!(slots, number32(&case["slots"]), "{case}");
        }
    }
    for case in list(&file["v2_sums"]) {
        let nipost = |nipost: &Value| {
            let units = list(&nipost["effective_units"]).iter().map(|units| SpaceUnits(number32(units))).collect();
            (units, Leaves(number(&nipost["poet_leaf_count"])))
        };
        let niposts: Vec<_> = list(&case["niposts"]).iter().map(nipost).collect();
        let found = eligibility::sums(&niposts, number(&case["tick_size"]));
        assert_eq!(found.is_err(), case.get("error").is_some(), "{case}: {found:?}");
        if let Ok(sums) = found {
            assert_eq!(u64::from(sums.units.0), number(&case["units"]), "{case}");
            assert_eq!(sums.ticks, Ticks(number(&case["ticks"])), "{case}");
            assert_eq!(sums.weight, weight(&case["weight"]), "{case}");
        }
    }
    for case in list(&file["vrf_difficulty"]) {
        let found = eligibility::vrf_difficulty(SpaceUnits(1), Labels(number(&case["num_labels"])));
        match text(&case["difficulty_be"]) {
            "panic" => assert!(found.is_err(), "{case}"),
            expected => assert_eq!(hex::encode(found.unwrap()), expected, "{case}"),
        }
    }
    check_commitments(&file);
}

fn check_commitments(file: &Value) {
    for case in list(&file["commitment"]) {
        let found = post::commitment(&NodeId(array(&case["node_id"])), &AtxId(array(&case["commitment_atx"])));
        assert_eq!(found.to_string(), text(&case["commitment"]));
    }
}

#[test]
fn of_the_specification() {
    let file = load!("node/weights.json");
    let cases = &file["min_weight_select"];
    let entries = schedule(&cases["schedule"]);
    for case in list(&cases["cases"]) {
        assert_eq!(eligibility::min_weight(&entries, EpochId(number32(&case[0]))), weight(&case[1]));
    }
    assert_eq!(eligibility::min_weight(&[], EpochId(9)), weight(&cases["empty_schedule"]));
    for case in list(&file["slots"]) {
        let average = number32(&case["avg_layer_size"]);
        let [own, total, min] = ["weight", "total", "min"].map(|name| weight(&case[name]));
        let found = eligibility::slots(own, total, min, average, layers(&case["layers_per_epoch"]));
        assert_eq!(found, Ok(number32(&case["slots"])));
    }
    for case in list(&file["vrf_difficulty"]) {
        let units = SpaceUnits(number32(&case["num_units"]));
        let found = eligibility::vrf_difficulty(units, Labels(number(&case["labels_per_unit"])));
        assert_eq!(hex::encode(found.unwrap()), text(&case["difficulty_be"]));
    }
    for case in list(&file["atx_weight"]) {
        let ticks = Leaves(number(&case["leaves"])).ticks(number(&case["tick_size"]));
        assert_eq!(ticks, Ticks(number(&case["ticks"])));
        assert_eq!(eligibility::weight(SpaceUnits(number32(&case["units"])), ticks), Ok(weight(&case["weight"])));
    }
    check_commitments(&file);
    assert!(eligibility::weight(SpaceUnits(2), Ticks(u64::MAX)).is_err());
    assert_eq!(eligibility::effective_units(SpaceUnits(5), Some(SpaceUnits(3))), SpaceUnits(3));
    assert_eq!(eligibility::effective_units(SpaceUnits(2), Some(SpaceUnits(3))), SpaceUnits(2));
    assert_eq!(eligibility::effective_units(SpaceUnits(2), None), SpaceUnits(2));
}

/// A proof that begins with these bytes.
fn drawn(prefix: &Value) -> VrfSignature {
    let prefix = bytes(prefix);
    let mut proof = VrfSignature::EMPTY;
    proof.0[..prefix.len()].copy_from_slice(&prefix);
    proof
}

#[test]
fn seats_in_committees() {
    let file = load!("node/weights.json");
    let (oracle, fixture) = (&file["hare_eligibility_oracle"], &file["hare_eligibility_oracle"]["fixture"]);
    for case in list(&oracle["cases"]) {
        let proof = drawn(&case["vrf_prefix"]);
        assert_eq!(proof.fraction56(), number(&case["frac56"]));
        let (own, total) = (weight(&fixture["miner_weight"]), weight(&fixture["total_weight"]));
        let draws = eligibility::seats(own, total, number32(&fixture["committee_size"]), &proof).unwrap();
        assert_eq!(draws.n, number(&fixture["n"]));
        assert_eq!(draws.successes(), Ok(number(&case["count"])));
    }
    for case in list(&load!("consensus/oracle_eligibility.json")["cases"]) {
        let (own, total) = (weight(&case["miner_weight"]), weight(&case["total_weight"]));
        let draws = eligibility::seats(own, total, number32(&case["committee"]), &drawn(&case["vrf_first8"])).unwrap();
        let count = number(&case["count"]);
        assert_eq!(draws.successes(), Ok(count), "{case}");
        assert_eq!(draws.succeed(count), Ok(case["valid_count"].as_bool().unwrap()), "{case}");
        assert_eq!(draws.succeed(count + 1), Ok(case["valid_count_plus_one"].as_bool().unwrap()), "{case}");
    }
    let seats = |own, total, committee| eligibility::seats(Weight(own), Weight(total), committee, &VrfSignature::EMPTY);
    assert_eq!(seats(1, 1, 0).unwrap_err(), SeatsError::NoSeats);
    assert_eq!(seats(1, 0, 1).unwrap_err(), SeatsError::Empty);
    assert_eq!(seats((1 << 30) + 1, u64::MAX, 1).unwrap_err(), SeatsError::TooLarge((1 << 30) + 1));
    assert!(seats(1 << 30, u64::MAX, 1).is_ok());
}

#[test]
fn fixed_point_arithmetic() {
    let fixed = |value: &Value| Fixed::from_bits(u128::from_str_radix(text(value), 16).unwrap());
    let file = load!("consensus/fixed_arith.json");
    for case in list(&file["div_uint64"]) {
        assert_eq!(Fixed::ratio(number(&case["p"]), number(&case["q"])), Ok(fixed(&case["result"])), "{case}");
    }
    for case in list(&file["signed"]).iter().chain(list(&file["small"])) {
        let (x, y) = (fixed(&case["x"]), fixed(&case["y"]));
        for (name, found) in [("add", x.plus(y)), ("sub", x.minus(y)), ("mul", x.times(y)), ("div", x.over(y))] {
            assert!(case.get(name).is_none_or(|expected| found == Ok(fixed(expected))), "{name} {case}");
        }
        for (name, found) in [("less", x.less(y)), ("greater", x.greater(y))] {
            assert!(case.get(name).is_none_or(|expected| expected == found), "{name} {case}");
        }
    }
    for case in list(&load!("consensus/fixed_bincdf.json")["cases"]) {
        let p = Fixed::ratio(number(&case["p_num"]), number(&case["p_den"])).unwrap();
        assert_eq!(p, fixed(&case["p"]));
        let found = fixed::at_most(number(&case["n"]), p, case["x"].as_i64().unwrap());
        assert_eq!(found, Ok(fixed(&case["cdf"])), "{case}");
    }
}

proptest! {
    /// No numbers make it panic, and what has a value has a sound one.
    #[test]
    fn fixed_point_arithmetic_survives_everything(x: u128, y: u128, n: u64, times in -1..1000i64, part in 0..1u64 << 56) {
        let (x, y) = (Fixed::from_bits(x), Fixed::from_bits(y));
        let _ = (x.plus(y), x.minus(y), x.times(y), x.over(y), fixed::at_most(n, x, times));
        if let Ok(chance) = fixed::at_most(n % (1 << 30), Fixed::fraction(part), times) {
            // the rounding of the deployed arithmetic may leave the interval by a little
            let (least, most) = (Fixed::ratio(1, 1_000_000).unwrap(), Fixed::ratio(1_000_001, 1_000_000).unwrap());
            let shifted = chance.plus(least).unwrap();
            prop_assert!(shifted.less(most.plus(least).unwrap()), "{:x}", chance.to_bits());
        }
    }
}
