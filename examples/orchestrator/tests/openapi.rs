//! The document of the HTTP interface says what the service does: every route, every method, every key of every answer.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Place, QUICK, Server};
use serde_json::{Map, Value, json};

fn document() -> Value {
    serde_json::from_str(include_str!("../src/serve/openapi.json")).unwrap()
}

/// Paths and their methods, as the document has them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document = document();
    let paths = document["paths"].as_object().unwrap().iter();
    let methods =
        |operations: &Value| operations.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
    paths.map(|(path, operations)| (path.clone(), methods(operations))).collect()
}

/// Seen to fail with a route that the document did not have, and with one that only the document had.
#[test]
fn the_document_has_the_routes_of_the_service() {
    let source = include_str!("../src/serve/routes.rs");
    let routes: BTreeSet<_> =
        source.split(".route(").skip(1).map(|rest| rest.split('"').nth(1).unwrap().to_owned()).collect();
    assert!(routes.len() > 15, "the routes are not found: {routes:?}");
    assert_eq!(documented().into_keys().collect::<BTreeSet<_>>(), routes);

    let place = Place::new(QUICK);
    let server = place.serve();
    for (path, mut methods) in documented() {
        let path = path.replace("{id}", "1").replace("{file}", "app.js");
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        let answer = server.change("PATCH", &path, "{}");
        assert_eq!(answer.status, 405, "{path}");
        let allowed: BTreeSet<_> = answer.header("allow").split(',').map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

/// Compares a value with its schema, in the words that ours uses.
#[track_caller]
fn fits(value: &Value, schema: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return fits(value, &document()["components"]["schemas"][name], at);
    }
    for either in ["oneOf", "anyOf"] {
        if let Some(schemas) = schema[either].as_array() {
            let is_null = |schema: &&Value| schema["type"] == "null";
            let chosen = schemas.iter().find(|schema| {
                if value.is_null() { is_null(schema) } else { !is_null(schema) && knows(schema, value) }
            });
            return fits(value, chosen.unwrap_or_else(|| panic!("{at}: {value} is none of {schemas:?}")), at);
        }
    }
    let types: Vec<_> = match &schema["type"] {
        Value::Array(types) => types.iter().map(|kind| kind.as_str().unwrap()).collect(),
        kind => vec![kind.as_str().unwrap()],
    };
    let is = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("{at}: no type {other}"),
    };
    assert!(types.iter().any(is), "{at}: {value} is no {types:?}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    if let (Some(list), Some(items)) = (value.as_array(), schema.get("items")) {
        list.iter().for_each(|item| fits(item, items, &format!("{at}[]")));
    }
    if let Some(object) = value.as_object() {
        let known = schema["properties"].as_object().cloned().unwrap_or_default();
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(object.contains_key(name.as_str().unwrap()), "{at}: no {name} in {value}");
        }
        for (name, value) in object {
            match (known.get(name), schema.get("additionalProperties")) {
                (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                    fits(value, schema, &format!("{at}.{name}"))
                }
                // A policy has what was set, and inner objects of the library's are its own.
                (None, _) => assert!(known.is_empty() || at.ends_with("policy"), "{at}: {name} is not in the document"),
            }
        }
    }
}

/// Whether an object has all that this schema requires.
fn knows(schema: &Value, value: &Value) -> bool {
    let document = document();
    let schema = match schema["$ref"].as_str() {
        Some(name) => &document["components"]["schemas"][name.rsplit('/').next().unwrap()],
        None => schema,
    };
    let empty = Map::new();
    let object = value.as_object().unwrap_or(&empty);
    schema["required"].as_array().into_iter().flatten().all(|name| object.contains_key(name.as_str().unwrap()))
}

fn answers(server: &Server, method: &str, path: &str, asked: &str, body: &str) {
    let response = match method {
        "GET" => server.get(asked),
        _ => server.change(method, asked, body),
    };
    let document = document();
    let operation = &document["paths"][path][method.to_lowercase()];
    let told = &operation["responses"][response.status.to_string()];
    assert!(told.is_object(), "{method} {asked}: {} is not in the document: {response:?}", response.status);
    let (kind, content) = told["content"].as_object().unwrap().iter().next().unwrap();
    assert!(response.header("content-type").starts_with(kind.as_str()), "{method} {asked}: {response:?}");
    if kind == "application/json" {
        fits(&response.json(), &content["schema"], &format!("{method} {path}"));
    }
}

/// Seen to fail with a key that the document did not have.
#[test]
fn answers_have_the_keys_of_the_document() {
    let place = Place::new(QUICK);
    let server = place.serve();
    answers(&server, "GET", "/queue", "/queue", "");
    answers(&server, "POST", "/jobs", "/jobs", r#"{"kind":"red"}"#);
    server.until_counts("rolled_back", 1);
    server.submit(r#"{"kind":"gated"}"#);
    place.pid_of(2);
    server.until("deferred", |queue| queue["running"]["wait"][0]["deferred"].is_object());
    for (path, asked) in [
        ("/queue", "/queue"),
        ("/jobs", "/jobs"),
        ("/jobs", "/jobs?state=gone"),
        ("/jobs/{id}", "/jobs/1"),
        ("/jobs/{id}", "/jobs/2"),
        ("/jobs/{id}", "/jobs/3"),
        ("/jobs/{id}/output", "/jobs/1/output"),
        ("/history", "/history"),
        ("/policy/preview", "/policy/preview?mode=ignore"),
        ("/healthz", "/healthz"),
        ("/metrics", "/metrics"),
        ("/openapi.json", "/openapi.json"),
        ("/", "/"),
    ] {
        answers(&server, "GET", path, asked, "");
    }
    answers(&server, "PUT", "/policy", "/policy", r#"{"mode":"defer_all","for":"1h","by":"ann"}"#);
    answers(&server, "GET", "/queue", "/queue", "");
    answers(&server, "PUT", "/policy", "/policy", "{");
    answers(&server, "PUT", "/submission", "/submission", r#"{"paused":false}"#);
    answers(&server, "DELETE", "/jobs/{id}/mark", "/jobs/2/mark?generation=99999", "{}");
    answers(&server, "POST", "/jobs/{id}/end", "/jobs/2/end", "{}");
    answers(&server, "POST", "/jobs/{id}/end", "/jobs/2/end", "{}");
    answers(&server, "POST", "/jobs/{id}/requeue", "/jobs/2/requeue", "{}");
    assert_eq!(document()["openapi"], json!("3.1.0"));
}
