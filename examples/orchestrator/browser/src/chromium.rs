//! Debian's Chromium, headless, driven over WebDriver.

use std::fs;
use std::io::BufReader;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{ParseError, Url};

use crate::{Group, PATIENCE, first_line, on_path, target_directory};

/// Told where the browser or its driver is missing.
pub const INSTALL: &str = "is not installed: apt-get install -y chromium chromium-driver";

const FLAGS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1440,900",
];

/// A browser with one page, and a profile of its own.
#[derive(Debug)]
pub struct Chromium {
    client: Client,
    // Ended before its profile is removed.
    _driver: Group,
    _profile: TempDir,
}

/// Opens `origin` in a new browser and lets `test` work with the page. Whatever it tests, in the end there must have
/// been nothing on the console but what is `expected`, and no request to anyone but the server.
pub async fn visit(origin: &str, expected: &[&str], test: impl AsyncFnOnce(&Chromium)) {
    let page = Chromium::launch("chromedriver", "chromium").await.unwrap_or_else(|error| panic!("{error}"));
    page.go(origin).await;
    test(&page).await;
    page.assert_quiet(expected).await;
    page.assert_no_stranger(origin).await;
}

impl Chromium {
    /// Starts a driver and its browser, both found on the search path.
    pub async fn launch(driver: &str, browser: &str) -> Result<Self, String> {
        let find = |name| on_path(name).ok_or_else(|| format!("{name} {INSTALL}"));
        let (driver, browser) = (find(driver)?, find(browser)?);
        let mut started = Group::spawn(Command::new(&driver).arg("--port=0").stdout(Stdio::piped()), None)
            .map_err(|error| format!("{}: {error}", driver.display()))?;
        let lines = BufReader::new(started.child.stdout.take().expect("it is piped"));
        let port = |line: &str| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok();
        let port = first_line(lines, port).ok_or("the driver tells no port")?;

        let profile = tempfile::tempdir().map_err(|error| format!("temporary directory: {error}"))?;
        let flags =
            FLAGS.into_iter().map(str::to_owned).chain([format!("--user-data-dir={}", profile.path().display())]);
        let Value::Object(capabilities) = json!({
            "goog:chromeOptions": { "binary": browser, "args": flags.collect::<Vec<_>>() },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        }) else {
            unreachable!("it is an object")
        };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .map_err(|error| format!("{}: {error}", browser.display()))?;
        Ok(Self { client, _driver: started, _profile: profile })
    }

    /// Opens an address.
    pub async fn go(&self, address: &str) {
        self.client.goto(address).await.expect("the page opens");
    }

    /// What a script returns.
    pub async fn eval(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// What a script hands to its last argument.
    pub async fn eval_async(&self, script: &str) -> Value {
        self.client.execute_async(script, Vec::new()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until a script returns something that is true, and gives it.
    pub async fn eventually(&self, what: &str, script: &str) -> Value {
        let started = Instant::now();
        loop {
            let value = self.eval(script).await;
            if !matches!(value, Value::Null | Value::Bool(false)) && value != json!("") && value != json!(0) {
                return value;
            }
            if started.elapsed() > PATIENCE {
                let text = self.eval("return document.body.innerText").await;
                panic!("never seen: {what}; the page says:\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The text of the element.
    pub async fn text(&self, css: &str) -> String {
        let text = self.eval(&format!("return document.querySelector({}).textContent", json!(css))).await;
        text.as_str().expect("text").replace('\u{a0}', " ")
    }

    /// Clicks with the mouse, in the middle of the element; fails if something else lies over it.
    pub async fn click(&self, css: &str) {
        // The driver scrolls too, but not past what sticks to the top of the screen.
        self.eval(&format!("document.querySelector({})?.scrollIntoView({{ block: 'nearest' }})", json!(css))).await;
        let element = self.client.find(Locator::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"));
        element.click().await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Fills in a field.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.client.find(Locator::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"));
        field.clear().await.unwrap_or_else(|error| panic!("{css}: {error}"));
        field.send_keys(text).await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Presses a key, wherever the focus is.
    pub async fn press(&self, key: Key) {
        self.press_all(&[key.into()]).await;
    }

    /// Types a text, wherever the focus is.
    pub async fn r#type(&self, text: &str) {
        self.press_all(&text.chars().collect::<Vec<_>>()).await;
    }

    async fn press_all(&self, keys: &[char]) {
        let strokes = keys.iter().flat_map(|&value| [KeyAction::Down { value }, KeyAction::Up { value }]);
        let strokes = strokes.fold(KeyActions::new("keyboard".into()), InputSource::then);
        self.client.perform_actions(strokes).await.expect("keys can be pressed");
    }

    /// Makes the page believe in another screen: CSS pixels, and "light" or "dark".
    pub async fn screen(&self, width: u32, height: u32, scheme: &str) {
        // As on a phone or a Mac, scroll bars take no width: what is asked for is what the page gets.
        self.devtools("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// Keeps a picture of the whole page as `screenshots/<name>.png` in the build directory.
    pub async fn keep_screenshot(&self, name: &str) {
        // What sticks to the top of the screen is then at the top of the page.
        self.eval("scrollTo(0, 0)").await;
        let size = self.devtools("Page.getLayoutMetrics", json!({})).await["cssContentSize"].clone();
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let shot =
            self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "clip": clip })).await;
        let shot = shot["data"].as_str().expect("a picture");
        let directory = target_directory().join("screenshots");
        fs::create_dir_all(&directory).expect("the build directory can be written");
        fs::write(directory.join(format!("{name}.png")), BASE64.decode(shot).expect("base64"))
            .expect("the build directory can be written");
    }

    async fn assert_quiet(&self, expected: &[&str]) {
        let log = self.issue("se/log", json!({ "type": "browser" })).await;
        let loud = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        let wanted =
            |entry: &&Value| expected.iter().any(|text| entry["message"].as_str().unwrap_or("").contains(text));
        let told: Vec<_> = log.as_array().expect("a log").iter().filter(loud).filter(|entry| !wanted(entry)).collect();
        assert!(told.is_empty(), "on the console: {told:#?}");
    }

    async fn assert_no_stranger(&self, origin: &str) {
        let log = self.issue("se/log", json!({ "type": "performance" })).await;
        let address = |entry: &Value| {
            let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let event = &event["message"];
            (event["method"] == "Network.requestWillBeSent")
                .then(|| event["params"]["request"]["url"].as_str())?
                .map(str::to_owned)
        };
        let asked: Vec<_> = log.as_array().expect("a log").iter().filter_map(address).collect();
        assert!(asked.iter().any(|url| url.ends_with("/events")), "the log has no requests: {asked:?}");
        // The browser's own start page, with what it is made of, is not ours, and asks nobody either.
        let own = |url: &str| ["chrome:", "chrome-untrusted:", "data:"].iter().any(|scheme| url.starts_with(scheme));
        let strange: Vec<_> = asked.iter().filter(|url| !url.starts_with(origin) && !own(url)).collect();
        assert!(strange.is_empty(), "asked elsewhere: {strange:?}");
    }

    /// A command of Chromium's own protocol.
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.issue("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// A command that only this driver has.
    async fn issue(&self, path: &'static str, body: Value) -> Value {
        self.client.issue_cmd(Extension { path, body }).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
