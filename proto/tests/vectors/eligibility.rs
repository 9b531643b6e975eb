use std::num::NonZeroU32;

use proto::{
    eligibility::{self, Grade, Weight},
    ids::{AtxId, NodeId},
    layers::{EpochId, LayersPerEpoch},
    poet::{Leaves, Ticks},
    post,
    units::{Labels, SpaceUnits},
};
use serde_json::Value;

use crate::{array, list, load, number, number32, text};

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
