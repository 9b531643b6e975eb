//! Names and numbers of messages are those of deployed nodes: the tables of api.md section 4, read from the page.

use std::collections::BTreeMap;

use prost_reflect::{Cardinality, DescriptorPool, Kind};

/// Fields of messages, as api.md lists them: `name number type`, `*` repeated, `?` optional.
const MESSAGES: [(&str, &str); 66] = [
    ("SimpleInt", "value 1 uint64"),
    ("SimpleString", "value 1 string"),
    ("Amount", "value 1 uint64"),
    ("AccountId", "address 1 string"),
    ("TransactionId", "id 1 bytes"),
    ("ActivationId", "id 1 bytes"),
    ("SmesherId", "id 1 bytes"),
    ("LayerNumber", "number 1 uint32"),
    ("EpochNumber", "number 1 uint32"),
    ("Nonce", "counter 1 uint64, bitfield 2 uint32"),
    ("LayerLimits", "min 1 uint32, max 2 uint32"),
    (
        "Transaction",
        "id 1 bytes, principal 2 AccountId, template 3 AccountId, method 4 uint32, nonce 5 Nonce, limits 6 LayerLimits, \
         max_gas 7 uint64, gas_price 8 uint64, max_spend 9 uint64, raw 10 bytes",
    ),
    ("MeshTransaction", "transaction 1 Transaction, layer_id 2 LayerNumber"),
    (
        "Activation",
        "id 1 ActivationId, layer 2 LayerNumber, smesher_id 3 SmesherId, coinbase 4 AccountId, prev_atx 5 ActivationId, \
         num_units 6 uint32, sequence 7 uint64, previous_atxs 8 ActivationId*",
    ),
    (
        "Reward",
        "layer 1 LayerNumber, total 2 Amount, layer_reward 3 Amount, layer_computed 4 LayerNumber, coinbase 5 AccountId, \
         smesher 6 SmesherId",
    ),
    ("Block", "id 1 bytes, transactions 2 Transaction*, activation_id 3 ActivationId, smesher_id 4 SmesherId"),
    (
        "Layer",
        "number 1 LayerNumber, status 2 LayerStatus, hash 3 bytes, blocks 4 Block*, activations 5 Activation*, \
         root_state_hash 6 bytes",
    ),
    (
        "MalfeasanceProof",
        "smesher_id 1 SmesherId, layer 2 LayerNumber, kind 3 MalfeasanceType, debug_info 4 string, proof 5 bytes",
    ),
    ("EchoRequest", "msg 1 SimpleString"),
    ("EchoResponse", "msg 1 SimpleString"),
    ("VersionResponse", "version_string 1 SimpleString"),
    ("BuildResponse", "build_string 1 SimpleString"),
    ("StatusResponse", "status 1 NodeStatus"),
    ("StatusStreamResponse", "status 1 NodeStatus"),
    (
        "NodeStatus",
        "connected_peers 1 uint64, is_synced 2 bool, synced_layer 3 LayerNumber, top_layer 4 LayerNumber, \
         verified_layer 5 LayerNumber",
    ),
    ("NodeInfoResponse", "hrp 1 string, first_genesis 2 uint32, effective_genesis 3 uint32, epoch_size 4 uint32"),
    ("NodeError", "level 1 LogLevel, module 2 string, msg 3 string, stack_trace 4 string"),
    ("ErrorStreamResponse", "error 1 NodeError"),
    ("GenesisTimeResponse", "unixtime 1 SimpleInt"),
    ("CurrentLayerResponse", "layernum 1 LayerNumber"),
    ("CurrentEpochResponse", "epochnum 1 EpochNumber"),
    ("GenesisIDResponse", "genesis_id 1 bytes"),
    ("EpochNumLayersResponse", "numlayers 1 LayerNumber"),
    ("LayerDurationResponse", "duration 1 SimpleInt"),
    ("MaxTransactionsPerSecondResponse", "max_txs_per_second 1 SimpleInt"),
    ("GetRequest", "id 1 bytes"),
    ("GetResponse", "atx 1 Activation, malfeasance_proof 2 MalfeasanceProof"),
    ("HighestResponse", "atx 1 Activation"),
    ("IsSmeshingResponse", "is_smeshing 1 bool"),
    ("StartSmeshingRequest", "coinbase 1 AccountId, opts 2 PostSetupOpts"),
    ("StopSmeshingRequest", "delete_files 1 bool"),
    ("SmesherIDsResponse", "public_keys 1 bytes*"),
    ("CoinbaseResponse", "account_id 1 AccountId"),
    ("SetCoinbaseRequest", "id 1 AccountId"),
    ("SetCoinbaseResponse", "status 1 Status"),
    ("PostSetupStatus", "state 1 State, num_labels_written 2 uint64, opts 3 PostSetupOpts"),
    ("PostSetupOpts", "data_dir 1 string, num_units 2 uint32, max_file_size 3 uint64, provider_id 4 uint32?, throttle 5 bool"),
    ("PostSetupProvider", "id 1 uint32, model 2 string, device_type 3 DeviceType, performance 4 uint64"),
    (
        "PostConfigResponse",
        "bits_per_label 1 uint32, labels_per_unit 2 uint64, min_num_units 3 uint32, max_num_units 4 uint32, k1 5 uint32, k2 6 uint32",
    ),
    ("EventBeacon", "epoch 1 uint32, beacon 2 bytes"),
    ("EventInitStart", "smesher 1 bytes, commitment 2 bytes"),
    ("EventInitComplete", "smesher 1 bytes"),
    ("EventInitFailed", "smesher 1 bytes, commitment 2 bytes, error 3 string"),
    ("EventPostStart", "challenge 1 bytes, smesher 2 bytes"),
    ("EventAtxPubished", "current 1 uint32, target 2 uint32, id 3 bytes, wait 4 Duration, until 5 Timestamp, smesher 6 bytes"),
    (
        "EventEligibilities",
        "epoch 1 uint32, beacon 2 bytes, atx 3 bytes, active_set_size 4 uint32, eligibilities 5 ProposalEligibility*, \
         smesher 6 bytes",
    ),
    ("EventProposal", "layer 1 uint32, proposal 2 bytes, smesher 3 bytes"),
    ("EventWaitingForPoETRegistrationWindow", "current 1 uint32, publish 2 uint32, round_end 3 Timestamp, smesher 4 bytes"),
    ("EventProofDownloadedFromPoet", "url 1 string, round_id 2 string, ticks 3 uint64"),
    ("EventRegisteredInPoet", "url 1 string, smesher 2 bytes, round_id 3 string"),
    ("EventBestProofSelected", "url 1 string, round_id 2 string, ticks 3 uint64, smesher 4 bytes"),
    ("EventWaitingForPoETRoundEnd", "publish 1 uint32, target 2 uint32, round_end 3 Timestamp, smesher 4 bytes"),
    (
        "PeerInfo",
        "id 1 string, connections 2 ConnectionInfo*, tags 3 string*, client_stats 4 PeerRequestStats?, \
         server_stats 5 PeerRequestStats?, bytes_sent 6 uint64, bytes_received 7 uint64, send_rate 8 uint64*, recv_rate 9 uint64*",
    ),
    ("ConnectionInfo", "address 1 string, uptime 2 Duration, outbound 3 bool, kind 4 Kind"),
    ("PostState", "id 1 bytes, state 2 State, name 3 string"),
    ("Metadata", "node_id 1 bytes, commitment_atx_id 2 bytes, nonce 3 uint64?, num_units 4 uint32, labels_per_unit 5 uint64"),
];

/// The choice of an event, by number.
const DETAILS: [&str; 19] = [
    "beacon",
    "init_start",
    "init_complete",
    "post_start",
    "post_complete",
    "poet_wait_round",
    "poet_wait_proof",
    "atx_published",
    "eligibilities",
    "proposal",
    "init_failed",
    "malfeasance",
    "post_service_started",
    "post_service_stopped",
    "waiting_for_poet_registration_window",
    "proof_downloaded_from_poet",
    "registered_in_poet",
    "best_proof_selected",
    "waiting_for_poet_round_end",
];

const ENUMS: [(&str, &str); 6] = [
    ("Layer.LayerStatus", "LAYER_STATUS_UNSPECIFIED LAYER_STATUS_APPROVED LAYER_STATUS_CONFIRMED LAYER_STATUS_APPLIED"),
    (
        "MalfeasanceProof.MalfeasanceType",
        "MALFEASANCE_UNSPECIFIED MALFEASANCE_ATX MALFEASANCE_BALLOT MALFEASANCE_HARE MALFEASANCE_POST_INDEX \
         MALFEASANCE_INCORRECT_PREV_ATX",
    ),
    (
        "LogLevel",
        "LOG_LEVEL_UNSPECIFIED LOG_LEVEL_DEBUG LOG_LEVEL_INFO LOG_LEVEL_WARN LOG_LEVEL_ERROR LOG_LEVEL_DPANIC LOG_LEVEL_PANIC \
         LOG_LEVEL_FATAL",
    ),
    (
        "PostSetupStatus.State",
        "STATE_UNSPECIFIED STATE_NOT_STARTED STATE_PREPARED STATE_IN_PROGRESS STATE_PAUSED STATE_COMPLETE STATE_ERROR",
    ),
    ("PostSetupProvider.DeviceType", "DEVICE_CLASS_CPU DEVICE_CLASS_GPU"),
    ("PostState.State", "UNUSED IDLE PROVING"),
];

fn pool() -> DescriptorPool {
    DescriptorPool::decode(proto::grpc::DESCRIPTORS).unwrap()
}

#[test]
fn fields_have_the_deployed_names_numbers_and_types() {
    let pool = pool();
    for (name, expected) in MESSAGES {
        let message = pool.get_message_by_name(&format!("spacemesh.v1.{name}")).unwrap_or_else(|| panic!("no {name}"));
        let mut found = BTreeMap::new();
        for field in message.fields() {
            let kind = match field.kind() {
                Kind::Message(message) => message.name().to_owned(),
                Kind::Enum(kind) => kind.name().to_owned(),
                scalar => format!("{scalar:?}"),
            };
            let mark = match field.cardinality() {
                Cardinality::Repeated => "*",
                _ if field.field_descriptor_proto().proto3_optional() => "?",
                _ => "",
            };
            found.insert(field.number(), format!("{} {} {kind}{mark}", field.name(), field.number()));
        }
        assert_eq!(found.into_values().collect::<Vec<_>>().join(", "), expected, "{name}");
    }
    let event = pool.get_message_by_name("spacemesh.v1.Event").unwrap();
    let details = event.oneofs().next().unwrap();
    assert_eq!(details.name(), "details");
    let mut members: Vec<_> = details.fields().map(|field| (field.number(), field.name().to_owned())).collect();
    members.sort();
    assert_eq!(members, (4..).zip(DETAILS.map(str::to_owned)).collect::<Vec<_>>());
    for (field, name, number) in [("timestamp", "timestamp", 1), ("failure", "failure", 2), ("help", "help", 3)] {
        assert_eq!(
            event.get_field_by_name(field).map(|field| (field.name().to_owned(), field.number())),
            Some((name.into(), number))
        );
    }
}

#[test]
fn both_packages_of_v2_are_the_same() {
    let pool = pool();
    for (name, expected) in [
        (
            "NetworkInfoResponse",
            "genesis_time 1, layer_duration 3, genesis_id 4, hrp 5, effective_genesis_layer 6, layers_per_epoch 7, \
             labels_per_unit 8",
        ),
        (
            "NodeStatusResponse",
            "connected_peers 1, status 2, latest_layer 3, applied_layer 4, processed_layer 5, current_layer 6",
        ),
    ] {
        for package in ["v2alpha1", "v2beta1"] {
            let message = pool.get_message_by_name(&format!("spacemesh.{package}.{name}")).unwrap();
            let fields: Vec<String> = message.fields().map(|field| format!("{} {}", field.name(), field.number())).collect();
            assert_eq!(fields.join(", "), expected, "{package}");
        }
    }
}

#[test]
fn values_have_the_deployed_names_and_numbers() {
    for (name, expected) in ENUMS {
        let found = pool().get_enum_by_name(&format!("spacemesh.v1.{name}")).unwrap_or_else(|| panic!("no {name}"));
        let values: Vec<_> = found.values().map(|value| (value.number(), value.name().to_owned())).collect();
        assert_eq!(values, (0..).zip(expected.split_whitespace().map(str::to_owned)).collect::<Vec<_>>(), "{name}");
    }
}
