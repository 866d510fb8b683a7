//! Policies in settings files and requests: what is read, what is refused, and in which words.
//!
//! The package `arbitrary-precision` runs these tests again, with a `serde_json` that gives some numbers as maps.

use std::time::Duration;

use livemark::{Mode, Policy, StageRules};
use serde::de::value::{Error as ValueError, MapDeserializer};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, Visitor};
use serde_json::{Value, json};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Read from text, and from a tree of values.
fn from_json(settings: &str) -> Result<Policy, String> {
    let from_text = serde_json::from_str::<Policy>(settings).map_err(|error| error.to_string());
    let Ok(tree) = serde_json::from_str::<Value>(settings) else { return from_text };
    let from_tree = serde_json::from_value::<Policy>(tree.clone()).map_err(|error| error.to_string());
    let from_borrowed_tree = Policy::deserialize(&tree).map_err(|error| error.to_string());
    // The text has a place in addition, and a number that is misplaced has more names than one.
    let words = |read: &Result<Policy, String>| {
        let error = |error: String| {
            let words = error.split(" at line ").next().unwrap_or_default();
            words.find(", expected ").map_or(words, |place| words.split_at(place).1).to_owned()
        };
        read.clone().map_err(error)
    };
    assert_eq!(words(&from_text), words(&from_tree));
    assert_eq!(from_tree, from_borrowed_tree);
    from_text
}

fn from_toml(settings: &str) -> Result<Policy, String> {
    toml::from_str(settings).map_err(|error| error.to_string())
}

/// The settings that a valid policy needs, and these.
fn with(settings: &str) -> String {
    format!(r#"{{"hard_deadline":3600,"marking_stages":["merge"],{settings}}}"#)
}

/// Returns the error of settings that must be refused.
fn error(settings: &str) -> String {
    from_json(settings).expect_err(settings)
}

// What is read

#[test]
fn what_is_left_out_is_as_in_the_builder() {
    let expected = Policy::builder().hard_deadline(seconds(3600)).marking_stage("merge").build();
    let expected = expected.map_err(|error| error.to_string());
    assert_eq!(from_toml("hard_deadline = 3600\nmarking_stages = ['merge']"), expected);
    assert_eq!(from_json(r#"{"hard_deadline":3600,"marking_stages":["merge"]}"#), expected);
    assert_eq!(from_json(r#"{"hard_deadline":3600,"marking_stage":"merge"}"#), expected);
    assert_eq!(from_json(r#"{"hard_deadline":3600,"stages":{"merge":{"marking":true}}}"#), expected);

    let expected = Policy::builder().no_backstop().no_marking_stages().stage("build", StageRules::new()).build();
    let expected = expected.map_err(|error| error.to_string());
    assert_eq!(from_toml("no_backstop = true\nno_marking_stages = true\nstages = { build = {} }"), expected);
    let settings = r#"{"no_backstop":true,"no_marking_stages":true,"stages":{"build":{"marking":false}}}"#;
    assert_eq!(from_json(settings), expected);
}

#[test]
fn every_setting_can_be_given() {
    let expected = Policy::builder()
        .mode(Mode::DryRun)
        .finalize_grace(Duration::from_millis(1500))
        .lost_grace(seconds(61))
        .hard_deadline(seconds(3601))
        .max_redrives(0)
        .boot_grace(Duration::from_nanos(1))
        .stale_after(seconds(601))
        .marking_stages(["gates", "merge"])
        .stage(
            "deploy",
            StageRules::marking()
                .finalize_grace(seconds(2))
                .lost_grace(seconds(3))
                .hard_deadline(seconds(4000))
                .max_redrives(u32::MAX)
                .boot_grace(seconds(5))
                .stale_after(seconds(6)),
        )
        .stage("migrate the data", StageRules::marking().no_backstop())
        .build()
        .unwrap();
    let settings = r#"
        mode = "dry_run"
        finalize_grace = 1.5
        lost_grace = 61.0
        hard_deadline = 3_601
        max_redrives = 0
        boot_grace = 1e-9
        stale_after = 601
        marking_stages = ["merge", "gates"]

        [stages.deploy]
        marking = true
        finalize_grace = 2
        lost_grace = 3
        hard_deadline = 4e3
        max_redrives = 4294967295
        boot_grace = 5
        stale_after = 6

        [stages]
        "migrate the data" = { marking = true, no_backstop = true }
    "#;
    assert_eq!(from_toml(settings).as_ref(), Ok(&expected));
    let settings = r#"{
        "mode": "dry_run", "finalize_grace": 1.5, "lost_grace": 61.0, "hard_deadline": 3601, "no_backstop": false,
        "max_redrives": 0, "boot_grace": 1e-9, "stale_after": 601, "marking_stages": ["merge", "gates"],
        "no_marking_stages": false,
        "stages": {
            "deploy": {
                "marking": true, "finalize_grace": 2, "lost_grace": 3, "hard_deadline": 4e3, "no_backstop": false,
                "max_redrives": 4294967295, "boot_grace": 5, "stale_after": 6
            },
            "migrate the data": { "marking": true, "no_backstop": true }
        }
    }"#;
    assert_eq!(from_json(settings), Ok(expected));
}

#[test]
fn some_keys_have_another_name() {
    let expected = from_json(r#"{"no_backstop":true,"marking_stages":["a"],"stages":{"b":{"marking":true},"c":{}}}"#);
    assert!(expected.is_ok());
    let settings = r#"{"no_backstop":true,"marking_stage":"a","stage":{"b":{"marks":true},"c":{"marks":false}}}"#;
    assert_eq!(from_json(settings), expected);
    assert_eq!(
        from_toml("no_backstop = true\nmarking_stage = 'a'\n[stage]\nb.marks = true\nc = {}"),
        expected,
        "TOML with a table for each stage"
    );
    let both = r#"{"no_backstop":true,"marking_stage":"a","marking_stages":["b"]}"#;
    assert!(from_json(both).unwrap().marking_stages().eq(["a", "b"]), "one more");
}

#[test]
fn a_limit_of_null_is_left_out() {
    let settings = r#"{
        "finalize_grace": null, "lost_grace": null, "hard_deadline": null, "no_backstop": true, "max_redrives": null,
        "boot_grace": null, "stale_after": null,
        "stages": { "merge": {
            "marking": true, "finalize_grace": null, "lost_grace": null, "hard_deadline": null, "max_redrives": null,
            "boot_grace": null, "stale_after": null
        } }
    }"#;
    let expected = Policy::builder().no_backstop().marking_stage("merge").build().unwrap();
    assert_eq!(from_json(settings), Ok(expected));
}

/// Before, those with a point or an exponent failed under `arbitrary_precision`: "invalid type: map,
/// expected a number of seconds". It was seen in the package of that name.
#[test]
fn numbers_come_as_the_format_has_them() {
    let deadline = |settings: &str| from_json(settings).unwrap().hard_deadline().unwrap();
    let only = |number: &str| format!(r#"{{"marking_stages":["merge"],"hard_deadline":{number}}}"#);
    for number in ["3600.0", "3.6e3", "3600", "3600.00", "36e+2"] {
        assert_eq!(deadline(&only(number)), seconds(3600), "{number}");
    }
    for (number, exact) in [("3600.125", Duration::from_millis(3_600_125)), ("301.000000001", Duration::new(301, 1))] {
        assert_eq!(deadline(&only(number)), exact, "{number}");
    }
    assert_eq!(deadline(&only("{\"nanos\":5,\"secs\":3600}")), Duration::new(3600, 5), "as serde has it");
    // No float has these.
    for exact in [(1 << 53) + 1, u64::MAX] {
        assert_eq!(deadline(&only(&exact.to_string())), seconds(exact));
    }
    assert_eq!(
        from_toml("marking_stage = 'a'\nhard_deadline = 9007199254740993").unwrap().hard_deadline(),
        Some(seconds((1 << 53) + 1))
    );
}

/// The value of a setting in a format with numbers of each width, as CBOR and `MessagePack` are.
enum Setting<D> {
    Number(D),
    OneSecond,
    Yes,
}

impl<'de, D: Deserializer<'de, Error = ValueError>> Deserializer<'de> for Setting<D> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Self::Number(number) => number.deserialize_any(visitor),
            Self::OneSecond => visitor.visit_u8(1),
            Self::Yes => visitor.visit_bool(true),
        }
    }

    /// An integer is no float, as in CBOR.
    fn deserialize_f64<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ValueError> {
        Err(serde::de::Error::custom("not asked for as it is"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 char str string bytes byte_buf unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de, Error = ValueError>> IntoDeserializer<'de, ValueError> for Setting<D> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[test]
fn integers_and_floats_of_every_width_are_numbers() {
    fn read<'de, N: IntoDeserializer<'de, ValueError>>(number: N) -> Result<Policy, String> {
        let settings = [
            ("hard_deadline", Setting::Number(number.into_deserializer())),
            ("finalize_grace", Setting::OneSecond),
            ("lost_grace", Setting::OneSecond),
            ("no_marking_stages", Setting::Yes),
        ];
        Policy::deserialize(MapDeserializer::new(settings.into_iter())).map_err(|error| error.to_string())
    }
    let expected = Policy::builder().hard_deadline(seconds(100)).finalize_grace(seconds(1)).lost_grace(seconds(1));
    let expected = Ok(expected.no_marking_stages().build().unwrap());
    for read in [
        [read(100_u8), read(100_u16), read(100_u32), read(100_u64), read(100_u128)],
        [read(100_i8), read(100_i16), read(100_i32), read(100_i64), read(100_i128)],
    ] {
        assert_eq!(read, read.each_ref().map(|_| expected.clone()));
    }
    assert_eq!([read(100_f32), read(100_f64)], [expected.clone(), expected]);
    for (read, words) in [
        (read(-1_i8), "-1 is no number of seconds: it is negative"),
        (read(i128::MIN), "-170141183460469231731687303715884105728 is no number of seconds: it is negative"),
        (read(u128::MAX), "an integer of more than 64 bits is no number of seconds: it is too long"),
        (read(f64::NAN), "NaN is no number of seconds: cannot convert float seconds to Duration"),
        (read("100"), "invalid type: string \"100\", expected a number of seconds"),
    ] {
        let error = read.unwrap_err();
        assert!(error.starts_with(words), "{error}");
    }
}

// What is refused

/// A misspelt limit must not go unnoticed: it would be the default, or none.
#[test]
fn unknown_keys_are_refused() {
    for settings in [
        r#""hard-deadline":1"#,
        r#""finalise_grace":3"#,
        r#""marking":true"#,
        r#""stages":{"merge":{"mode":"honor"}}"#,
        r#""stages":{"merge":{"mark":true}}"#,
        r#""stages":{"merge":{"stages":{}}}"#,
        r#""stages":{"merge":{"no_marking_stages":true}}"#,
    ] {
        let error = error(&with(settings));
        assert!(error.contains("unknown field"), "{error}");
    }
    for settings in ["hard_deadline = 3600\nfinalise_grace = 3", "[stages.merge]\nmark = true"] {
        let error = from_toml(&format!("lost_grace = 3\n{settings}")).unwrap_err();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn what_the_builder_refuses_is_refused_in_its_words() {
    let cases = [
        (json!({}), "neither hard_deadline nor no_backstop is given: choose one"),
        (json!({ "no_backstop": false }), "neither hard_deadline nor no_backstop is given: choose one"),
        (
            json!({ "hard_deadline": 3600, "no_backstop": true }),
            "both hard_deadline and no_backstop are given: they contradict each other",
        ),
        (json!({ "hard_deadline": 3600 }), "neither a marking stage nor no_marking_stages is given: choose one"),
        (
            json!({ "hard_deadline": 3600, "no_marking_stages": false, "marking_stages": [], "stages": { "build": {} } }),
            "neither a marking stage nor no_marking_stages is given: choose one",
        ),
        (
            json!({ "hard_deadline": 3600, "no_marking_stages": true, "marking_stages": ["merge"] }),
            "both a marking stage (\"merge\") and no_marking_stages are given: they contradict each other",
        ),
        (
            json!({ "hard_deadline": 3600, "no_marking_stages": true, "stages": { "merge": { "marking": true } } }),
            "both a marking stage (\"merge\") and no_marking_stages are given: they contradict each other",
        ),
        (
            json!({ "hard_deadline": 60 }),
            "hard_deadline (60s) must be longer than finalize_grace (300s): the backstop would act first",
        ),
        (
            json!({ "hard_deadline": 600, "boot_grace": 600.5 }),
            "hard_deadline (600s) must be longer than boot_grace (600.5s): the backstop would act first",
        ),
        (json!({ "hard_deadline": 3600, "lost_grace": 0 }), "lost_grace is zero: every job would be past it at once"),
        (
            json!({ "hard_deadline": 3600, "stages": { "merge": { "marking": true, "boot_grace": 0.0 } } }),
            "stage \"merge\": boot_grace is zero: leave it out to have none",
        ),
        (
            json!({ "hard_deadline": 3600, "stages": { "merge": { "marking": true, "no_backstop": true, "hard_deadline": 4000 } } }),
            "stage \"merge\": both hard_deadline and no_backstop are given: they contradict each other",
        ),
        (
            json!({ "hard_deadline": 3600, "stages": { "merge": { "marking": true, "hard_deadline": 200 } } }),
            "stage \"merge\": hard_deadline (200s) must be longer than finalize_grace (300s): the backstop would act first",
        ),
        (
            json!({ "hard_deadline": 3600, "marking_stages": ["merge", "gates", "merge"] }),
            "stage \"merge\": is given twice: its rules contradict each other",
        ),
        (
            json!({ "hard_deadline": 3600, "marking_stage": "merge", "stages": { "merge": { "marking": true } } }),
            "stage \"merge\": is given twice: its rules contradict each other",
        ),
    ];
    for (settings, words) in cases {
        let error = error(&settings.to_string());
        assert!(error.starts_with(words), "{error}");
        let settings: toml::Value = serde_json::from_value(settings).unwrap();
        let error = settings.try_into::<Policy>().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_is_given_twice_is_refused() {
    // Not by `from_json`: a tree would have lost the first already.
    let error = |settings: &str| serde_json::from_str::<Policy>(settings).expect_err(settings).to_string();
    let stage = error(&with(r#""stages":{"deploy":{"marking":true},"build":{},"deploy":{}}"#));
    assert!(stage.starts_with("stage \"deploy\": is given twice: its rules contradict each other"), "{stage}");
    for (settings, key) in [
        (r#""hard_deadline":7200"#, "hard_deadline"),
        (r#""marking_stages":[]"#, "marking_stages"),
        (r#""stages":{},"stages":{}"#, "stages"),
        (r#""stages":{},"stage":{}"#, "stages"),
        (r#""mode":"honor","mode":"honor""#, "mode"),
        (r#""stages":{"build":{"max_redrives":1,"max_redrives":1}}"#, "max_redrives"),
        (r#""stages":{"build":{"marking":true,"marks":true}}"#, "marking"),
    ] {
        let error = error(&with(settings));
        assert!(error.starts_with(&format!("duplicate field `{key}`")), "{error}");
    }
    assert!(from_toml("hard_deadline = 3600\n[stages]\nmerge = { marking = true }\nmerge = {}").is_err());
}

/// A list would be read by its order, which nobody promised. The code before was seen to do so.
#[test]
fn a_list_is_no_map() {
    for (settings, expected) in [
        (r#"["honor",300,60,3600,false,null,null,{}]"#.to_owned(), "a map: the settings of a policy"),
        ("[]".to_owned(), "a map: the settings of a policy"),
        (with(r#""stages":{"deploy":[true,null,null,null,false,null,null]}"#), "a map: the rules of a stage"),
        (with(r#""stages":{"deploy":[true]}"#), "a map: the rules of a stage"),
        (with(r#""stages":[["deploy",{"marking":true}]]"#), "a map from stages to their rules"),
        (with(r#""stages":["deploy"]"#), "a map from stages to their rules"),
    ] {
        let error = error(&settings);
        assert!(error.starts_with(&format!("invalid type: sequence, expected {expected}")), "{error}");
    }
    let error = from_toml("hard_deadline = 3600\nstages = { merge = [true] }").unwrap_err();
    assert!(error.contains("invalid type: sequence, expected a map: the rules of a stage"), "{error}");
}

/// The code before was seen to read the map, too.
#[test]
fn a_mode_is_text() {
    for (mode, words) in [
        ("\"Honor\"", "\"Honor\" is not a mode: one of honor, ignore, defer_all, dry_run"),
        ("\"\"", "\"\" is not a mode: one of"),
        ("1", "invalid type: integer `1`, expected a mode: one of honor, ignore, defer_all, dry_run"),
        ("true", "invalid type: boolean `true`, expected a mode"),
        ("null", "invalid type: null, expected a mode"),
        ("[\"honor\"]", "invalid type: sequence, expected a mode"),
        ("{\"ignore\":null}", "invalid type: map, expected a mode"),
    ] {
        let mut errors = vec![error(&with(&format!("\"mode\":{mode}")))];
        errors.push(serde_json::from_str::<Mode>(mode).unwrap_err().to_string());
        for error in errors {
            assert!(error.starts_with(words), "{error}");
        }
    }
}

#[test]
fn what_is_no_name_is_refused() {
    for (settings, words) in [
        (r#""marking_stage":null"#, "invalid type: null, expected a string"),
        (r#""marking_stage":["a"]"#, "invalid type: sequence, expected a string"),
        (r#""stages":null"#, "invalid type: null, expected a map from stages to their rules"),
        (r#""stages":{"deploy":null}"#, "invalid type: null, expected a map: the rules of a stage"),
        (r#""stages":{"deploy":true}"#, "invalid type: boolean `true`, expected a map: the rules of a stage"),
        (r#""no_backstop":null"#, "invalid type: null, expected a boolean"),
        (r#""no_backstop":1"#, "invalid type: integer `1`, expected a boolean"),
        (r#""no_marking_stages":null"#, "invalid type: null, expected a boolean"),
        (r#""stages":{"deploy":{"marking":null}}"#, "invalid type: null, expected a boolean"),
    ] {
        let error = error(&with(settings));
        assert!(error.starts_with(words), "{error}");
    }
    for (list, words) in [
        ("\"merge\"", "invalid type: string \"merge\", expected a sequence"),
        ("null", "invalid type: null, expected a sequence"),
        ("{}", "invalid type: map, expected a sequence"),
        ("[3]", "invalid type: integer `3`, expected a string"),
    ] {
        let error = error(&format!(r#"{{"hard_deadline":3600,"marking_stages":{list}}}"#));
        assert!(error.starts_with(words), "{error}");
    }
}

#[test]
fn what_is_no_number_of_seconds_is_refused() {
    for (number, words) in [
        ("-1", "-1 is no number of seconds: it is negative"),
        ("-0.5", "-0.5 is no number of seconds: cannot convert float seconds to Duration: value is negative"),
        ("1e20", "100000000000000000000 is no number of seconds: cannot convert float seconds to Duration"),
        ("1e400", ""), // "number out of range", or infinite
        ("\"300\"", "invalid type: string \"300\", expected a number of seconds"),
        ("true", "invalid type: boolean `true`, expected a number of seconds"),
        ("[300]", "invalid type: sequence, expected a number of seconds"),
        ("{}", "invalid type: map, expected a number of seconds"),
        ("{\"secs\":300}", "invalid type: map, expected a number of seconds"),
        ("{\"secs\":-300,\"nanos\":0}", "invalid type: map, expected a number of seconds"),
        ("{\"secs\":300,\"nanos\":1000000000}", "invalid type: map, expected a number of seconds"),
        ("{\"secs\":300,\"nanos\":0,\"millis\":0}", "invalid type: map, expected a number of seconds"),
    ] {
        for settings in [
            with(&format!(r#""finalize_grace":{number}"#)),
            format!(r#"{{"marking_stage":"a","hard_deadline":{number}}}"#),
            with(&format!(r#""stages":{{"deploy":{{"lost_grace":{number}}}}}"#)),
        ] {
            let error = error(&settings);
            assert!(error.starts_with(words), "{error}");
        }
    }
    // A float or an integer, by who reads it.
    let error = serde_json::from_str::<Policy>(&with(r#""lost_grace":18446744073709551616"#)).unwrap_err().to_string();
    assert!(error.contains("is no number of seconds"), "{error}");
    for number in ["nan", "-nan", "inf", "-inf", "-1", "1e300"] {
        let error = from_toml(&format!("no_backstop = true\nboot_grace = {number}")).unwrap_err();
        assert!(error.contains("is no number of seconds: ") && error.contains("boot_grace"), "{error}");
    }
    for no_number in ["'300'", "1979-05-27"] {
        let error = from_toml(&format!("no_backstop = true\nboot_grace = {no_number}")).unwrap_err();
        assert!(error.contains("expected a number of seconds"), "{error}");
    }
    let error = from_toml("hard_deadline = -0.0").unwrap_err();
    assert!(error.contains("hard_deadline is zero"), "{error}");
}

#[test]
fn what_is_no_number_of_redrives_is_refused() {
    for (number, words) in [
        ("-1", "-1 is no number of redrives: it is negative"),
        ("2.0", "2 is no number of redrives: it is no integer"),
        ("2.5", "2.5 is no number of redrives: it is no integer"),
        ("4294967296", "4294967296 is no number of redrives: it has more than 32 bits"),
        ("\"3\"", "invalid type: string \"3\", expected a number of redrives"),
        ("false", "invalid type: boolean `false`, expected a number of redrives"),
        ("{}", "invalid type: map, expected a number of redrives"),
        ("{\"secs\":3,\"nanos\":0}", "invalid type: map, expected a number of redrives"),
    ] {
        for settings in
            [format!(r#""max_redrives":{number}"#), format!(r#""stages":{{"a":{{"max_redrives":{number}}}}}"#)]
        {
            let error = error(&with(&settings));
            assert!(error.starts_with(words), "{error}");
        }
    }
}
