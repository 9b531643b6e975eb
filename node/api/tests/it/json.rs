//! The same calls as JSON: paths, forms of numbers and bytes, errors.

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::fake::{COINBASE, Served, all_public, known, listeners, serve};

struct Json {
    base: String,
    client: Client,
}

fn json(served: &Served) -> Json {
    Json { base: format!("http://{}", served.running.json.unwrap()), client: Client::new() }
}

impl Json {
    async fn ask(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let answer = self.client.request(method, format!("{}{path}", self.base)).body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(answer.headers()["content-type"], "application/json", "{path}");
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}")))
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.ask(Method::POST, path, body.to_owned()).await
    }

    /// Asserts on the whole answer.
    async fn answers(&self, path: &str, body: &str, expected: Value) {
        assert_eq!(self.post(path, body).await, (200, expected), "{path} {body}");
    }

    /// Asserts on status and code of an error.
    async fn fails(&self, path: &str, body: &str, status: u16, code: u64) -> String {
        let (got, body) = self.post(path, body).await;
        assert_eq!((got, body["code"].as_u64()), (status, Some(code)), "{path}: {body}");
        let mut fields: Vec<&String> = body.as_object().unwrap().keys().collect();
        fields.sort();
        assert_eq!(fields, ["code", "details", "message"]);
        assert_eq!(body["details"], json!([]));
        body["message"].as_str().unwrap().to_owned()
    }
}

const LEDGER: [&str; 3] = ["/v1/mesh/accountmeshdataquery", "/v1/mesh/layersquery", "/spacemesh.v1.MeshService/MalfeasanceQuery"];

const STREAMS: [&str; 10] = [
    "/spacemesh.v1.NodeService/StatusStream",
    "/spacemesh.v1.NodeService/ErrorStream",
    "/spacemesh.v1.MeshService/AccountMeshDataStream",
    "/spacemesh.v1.MeshService/LayerStream",
    "/spacemesh.v1.MeshService/EpochStream",
    "/spacemesh.v1.MeshService/MalfeasanceStream",
    "/spacemesh.v1.SmesherService/PostSetupStatusStream",
    "/spacemesh.v1.AdminService/EventsStream",
    "/spacemesh.v1.AdminService/PeerInfoStream",
    "/spacemesh.v1.PostService/Register",
];

#[tokio::test]
async fn public_calls() {
    let served = serve(&listeners()).await;
    let json = json(&served);
    json.answers("/v1/node/echo", r#"{"msg":{"value":"hi"}}"#, json!({ "msg": { "value": "hi" } })).await;
    json.answers("/v1/node/version", "", json!({ "versionString": { "value": "1.2.3" } })).await;
    json.answers("/v1/node/build", "", json!({ "buildString": { "value": "abcdef" } })).await;
    let status = json!({
        "connectedPeers": "2",
        "isSynced": true,
        "syncedLayer": { "number": 14540 },
        "topLayer": { "number": 14544 },
        "verifiedLayer": { "number": 14530 },
    });
    json.answers("/v1/node/status", "{}", json!({ "status": status })).await;
    let info = json!({ "hrp": "sm", "firstGenesis": 8063, "effectiveGenesis": 8063, "epochSize": 4032 });
    json.answers("/spacemesh.v1.NodeService/NodeInfo", "{}", info).await;
    json.answers("/v1/mesh/genesistime", "", json!({ "unixtime": { "value": "1689321600" } })).await;
    json.answers("/v1/mesh/currentlayer", "", json!({ "layernum": { "number": 14544 } })).await;
    json.answers("/v1/mesh/currentepoch", "", json!({ "epochnum": { "number": 3 } })).await;
    json.answers("/v1/mesh/genesisid", "", json!({ "genesisId": "nuv/Ajq7F8y3dcYC2q3o7XCPClA=" })).await;
    json.answers("/v1/mesh/epochnumlayers", "", json!({ "numlayers": { "number": 4032 } })).await;
    json.answers("/v1/mesh/layerduration", "", json!({ "duration": { "value": "300" } })).await;
    let (code, rate) = json.post("/v1/mesh/maxtransactionspersecond", "").await;
    assert!(code == 200 && rate["maxTxsPerSecond"]["value"].is_string(), "{rate}");
    for path in LEDGER {
        json.fails(path, "", 501, 12).await;
    }
    // v2 is asked with POST under its older name and with GET under its newer one
    let network = json!({
        "genesisTime": "2023-07-14T08:00:00Z",
        "layerDuration": "300s",
        "genesisId": "nuv/Ajq7F8y3dcYC2q3o7XCPClA=",
        "hrp": "sm",
        "effectiveGenesisLayer": 8063,
        "layersPerEpoch": 4032,
        "labelsPerUnit": "4294967296",
    });
    let node = json!({
        "connectedPeers": "2",
        "status": "SYNC_STATUS_SYNCED",
        "latestLayer": 14540,
        "appliedLayer": 14530,
        "processedLayer": 14530,
        "currentLayer": 14544,
    });
    for (call, expected) in [("NetworkService/Info", network), ("NodeService/Status", node)] {
        json.answers(&format!("/spacemesh.v2alpha1.{call}"), "", expected.clone()).await;
        let newer = format!("/spacemesh.v2beta1.{call}");
        let (status, answer) = json.ask(Method::GET, &format!("{newer}?limit=1&x=%ff"), "").await;
        assert_eq!((status, answer), (200, expected));
        assert_eq!(json.ask(Method::POST, &newer, "{}").await.0, 501);
    }

    let bytes = |byte: u8| proto::ids::AtxId([byte; 32]).to_base64();
    let atx = json!({
        "id": { "id": bytes(7) },
        "layer": { "number": 3 },
        "smesherId": { "id": bytes(1) },
        "coinbase": { "address": known().coinbase.to_text(proto::address::Network::Mainnet) },
        "prevAtx": { "id": bytes(5) },
        "numUnits": 40,
        "sequence": "11",
        "previousAtxs": [{ "id": bytes(5) }, { "id": bytes(6) }],
    });
    let request = json!({ "id": bytes(7) }).to_string();
    let found = json!({ "atx": atx, "malfeasanceProof": null });
    json.answers("/spacemesh.v1.ActivationService/Get", &request, found).await;
    json.answers("/spacemesh.v1.ActivationService/Highest", "{}", json!({ "atx": atx })).await;
    served.node.status.lock().unwrap().synced = false;
    let (_, found) = json.post("/spacemesh.v1.ActivationService/Get", &request).await;
    let proof = json!({
        "smesherId": { "id": bytes(1) },
        "layer": { "number": 12000 },
        "kind": "MALFEASANCE_ATX",
        "debugInfo": "two activations in one epoch",
        "proof": "",
    });
    assert_eq!(found["malfeasanceProof"], proof);
    // default values are there, unset messages are null
    let (_, golden) = json.post("/spacemesh.v1.ActivationService/Highest", "{}").await;
    let golden = &golden["atx"];
    assert_eq!((&golden["layer"], &golden["numUnits"], &golden["sequence"]), (&Value::Null, &json!(0), &json!("0")));
    assert_eq!((&golden["previousAtxs"], golden.as_object().unwrap().len()), (&json!([]), 8));
}

#[tokio::test]
async fn private_calls_where_the_operator_makes_them_public() {
    let served = serve(&all_public()).await;
    let json = json(&served);
    let ok = json!({ "status": { "code": 0, "message": "", "details": [] } });
    json.answers("/v1/smesher/issmeshing", "", json!({ "isSmeshing": false })).await;
    let start = json!({ "coinbase": { "address": COINBASE }, "opts": { "dataDir": "/d", "num_units": "4", "maxFileSize": 9 } });
    json.answers("/v1/smesher/startsmeshing", &start.to_string(), ok.clone()).await;
    {
        let started = served.node.started.lock().unwrap();
        let opts = &started[0];
        assert_eq!((&*opts.data_dir, opts.num_units, opts.max_file_size, opts.provider_id), ("/d", 4, 9, None));
    }
    json.answers("/v1/smesher/stopsmeshing", r#"{"deleteFiles":true}"#, ok.clone()).await;
    let keys = json!([proto::ids::NodeId([1; 32]).to_base64(), proto::ids::NodeId([2; 32]).to_base64()]);
    json.answers("/v1/smesher/smesherids", "", json!({ "publicKeys": keys })).await;
    json.answers("/v1/smesher/setcoinbase", &json!({ "id": { "address": COINBASE } }).to_string(), ok).await;
    json.fails("/v1/smesher/setcoinbase", r#"{"id":{"address":"x"}}"#, 500, 2).await;
    json.fails("/v1/smesher/setcoinbase", "{}", 400, 3).await;
    json.answers("/v1/smesher/coinbase", "", json!({ "accountId": { "address": COINBASE } })).await;
    // an unset optional field is left out
    let opts = json!({ "dataDir": "/data", "numUnits": 4, "maxFileSize": "4294967296", "throttle": false });
    let status = json!({ "state": "STATE_IN_PROGRESS", "numLabelsWritten": "18446744073709551615", "opts": opts });
    json.answers("/v1/smesher/postsetupstatus", "", json!({ "status": status })).await;
    let provider = json!({ "id": 0, "model": "a device", "deviceType": "DEVICE_CLASS_GPU", "performance": "0" });
    json.answers("/v1/smesher/postsetupproviders", "{}", json!({ "providers": [provider] })).await;
    let (_, config) = json.post("/v1/smesher/postconfig", "{}").await;
    assert_eq!((&config["bitsPerLabel"], &config["labelsPerUnit"]), (&json!(128), &json!("4294967296")));
    for call in ["smesherid", "mingas", "setmingas", "estimatedrewards"] {
        json.fails(&format!("/v1/smesher/{call}"), "", 501, 12).await;
    }
    json.fails("/spacemesh.v1.AdminService/Recover", "{}", 501, 12).await;
    let state = json!({ "id": proto::ids::NodeId([1; 32]).to_base64(), "state": "PROVING", "name": "local.key" });
    json.answers("/spacemesh.v1.PostInfoService/PostStates", "{}", json!({ "states": [state] })).await;
    let (_, overview) = json.post("/smesh.node.v1.OverviewService/Overview", "").await;
    assert_eq!(overview["nextEpoch"], "2023-09-08T08:00:00Z");
    let identities = overview["identities"].as_array().unwrap();
    assert_eq!((&identities[0]["publishEpoch"], identities[1].get("publishEpoch")), (&json!(4), None));
    let atx = json!({
        "id": proto::ids::AtxId([7; 32]).to_base64(),
        "publishEpoch": 3,
        "smesher": proto::ids::NodeId([1; 32]).to_base64(),
        "coinbase": known().coinbase.to_text(proto::address::Network::Mainnet),
        "units": 40,
        "weight": "18446744073709551615",
        "height": "77",
        "malicious": false,
    });
    let request = json!({ "id": atx["id"] }).to_string();
    json.answers("/smesh.node.v1.OverviewService/Activation", &request, atx).await;
    for path in STREAMS {
        let said = json.fails(path, "{}", 501, 12).await;
        assert_eq!(said, "streaming calls are not yet supported in the in-process transport");
    }
}

#[tokio::test]
async fn private_calls_have_no_paths_otherwise() {
    let served = serve(&listeners()).await;
    let json = json(&served);
    for path in [
        "/v1/smesher/smesherids",
        "/v1/smesher/setcoinbase",
        "/spacemesh.v1.SmesherService/SmesherIDs",
        "/spacemesh.v1.AdminService/EventsStream",
        "/spacemesh.v1.AdminService/Recover",
        "/spacemesh.v1.PostInfoService/PostStates",
        "/smesh.node.v1.OverviewService/Overview",
        "/smesh.node.v1.OverviewService/Activation",
    ] {
        json.fails(path, "{}", 404, 5).await;
    }
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let served = serve(&listeners()).await;
    let json = json(&served);
    assert_eq!(json.fails("/v1/node/nothing", "{}", 404, 5).await, "Not Found");
    assert_eq!(json.fails("/", "", 404, 5).await, "Not Found");
    // a bound call is not there under its other name
    json.fails("/spacemesh.v1.NodeService/Echo", "{}", 404, 5).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let (status, body) = json.ask(method, "/v1/node/version", "").await;
        assert_eq!((status, body), (501, json!({ "code": 12, "message": "Method Not Allowed", "details": [] })));
    }
    json.fails("/v1/node/echo", "{}", 400, 3).await;
    let get = "/spacemesh.v1.ActivationService/Get";
    for garbage in [
        "{",
        "[]",
        "7",
        "\"x\"",
        "null",
        "{} {}",
        "{}x",
        "\u{0}",
        "{\"id\":7}",
        "{\"id\":\"!\"}",
        "{\"id\":{}}",
        "{\"id\":[\"AA==\"]}",
        "{\"id\":\"AA\u{e9}\"}",
    ] {
        json.fails(get, garbage, 400, 3).await;
    }
    let deep = format!("{}{}", "{\"x\":".repeat(100_000), "}".repeat(100_000));
    json.fails(get, &deep, 400, 3).await;
    let mut bytes = vec![0xff_u8; 64];
    bytes[0] = b'{';
    let (status, _) = json.ask(Method::POST, get, bytes).await;
    assert_eq!(status, 400);
    json.fails(get, r#"{"id":"AA=="}"#, 400, 3).await;
    json.fails(get, &format!(r#"{{"id":"{}"}}"#, proto::ids::AtxId([8; 32]).to_base64()), 404, 5).await;
    json.fails(get, &format!(r#"{{"id":"{}"}}"#, proto::ids::AtxId([0xee; 32]).to_base64()), 500, 13).await;
}

#[tokio::test]
async fn input_is_read_leniently() {
    let served = serve(&listeners()).await;
    let json = json(&served);
    let echo = json!({ "msg": { "value": "x" } });
    for body in [r#"{"msg":{"value":"x"},"more":{"a":[1,{}]}}"#, " \n{\"msg\" : {\"value\":\"x\", \"other\":null}}\n"] {
        json.answers("/v1/node/echo", body, echo.clone()).await;
    }
    // calls that take nothing do not look at what they get
    let version = json!({ "versionString": { "value": "1.2.3" } });
    json.answers("/v1/node/version", "garbage", version).await;
    // bytes with and without padding, in both alphabets
    let get = "/spacemesh.v1.ActivationService/Get";
    for (id, status) in [
        ("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", 200),
        ("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc", 200),
        ("7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u4=", 500),
        ("__________________________________________8=", 404),
        ("//////////////////////////////////////////8=", 404),
    ] {
        assert_eq!(json.post(get, &format!(r#"{{"id":"{id}"}}"#)).await.0, status, "{id}");
    }
}

#[tokio::test]
async fn web_pages_ask_if_they_may() {
    for (origins, page, allowed) in [
        (vec!["*".to_owned()], "https://any.example", Some("*")),
        (vec!["https://wallet.example".to_owned()], "https://wallet.example", Some("https://wallet.example")),
        (vec!["https://wallet.example".to_owned()], "https://other.example", None),
        (vec![], "https://wallet.example", None),
    ] {
        let served = serve(&api::listen::Listeners { json_origins: origins, ..listeners() }).await;
        let url = format!("http://{}/v1/node/version", served.running.json.unwrap());
        let client = Client::new();
        let ask = client.post(&url).header("origin", page);
        let before = client.request(Method::OPTIONS, &url).header("origin", page).header("access-control-request-method", "POST");
        for answer in [ask.send().await.unwrap(), before.send().await.unwrap()] {
            assert_eq!(answer.status(), StatusCode::OK);
            let header = answer.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap());
            assert_eq!(header, allowed);
        }
    }
}
