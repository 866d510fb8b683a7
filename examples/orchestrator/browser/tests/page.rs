//! The page of `orchestrator serve`, as its users see it. Each test has a service and a browser of its own, and fails
//! if the browser's console has anything to say, or if the page asks anyone but the service.

use std::time::Duration;

use fantoccini::key::Key;
use orchestrator_browser::chromium::{Chromium, INSTALL, visit};
use orchestrator_browser::service::{Service, TOKEN};
use serde_json::{Value, json};

/// Quick enough for a test, slow enough to be seen. Every job outlives its grace in gate `test`.
const SETTINGS: &str = r#"
gates = [{ name = "build", command = ["sleep", "0.7"] }, { name = "test", command = ["sleep", "2.5"] }]
job.command = ["sleep", "0.5"]

[limits]
finalize_grace = 1.0
hard_deadline = 60.0
sweep_every = 0.05
process = 90.0
monitors = 8
shutdown = 0.2

# Stays where it is for as long as a test may take.
[kinds.long]
gates = [{ name = "build", command = ["sleep", "0.2"] }, { name = "test", command = ["sleep", "50"] }]

[kinds.slow]
job = { command = ["sleep", "50"] }
"#;

/// The browser's own words where a request is refused.
const REFUSED: &str = "/policy - Failed to load resource: the server responded with a status of 401";
/// And where the server is gone.
const GONE: &str = "/events - Failed to load resource: net::ERR_";

async fn pause(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// Types the token, and submits jobs by the form.
async fn submit(page: &Chromium, kind: &str, count: u32) {
    page.eventually("the mode in force", "return document.querySelector('.mode :checked') !== null").await;
    page.fill("#token", TOKEN).await;
    page.eventually(
        "the kind",
        &format!("return [...document.querySelector('#kind').options].some((o) => o.value === {})", json!(kind)),
    )
    .await;
    page.eval(&format!("document.querySelector('#kind').value = {}", json!(kind))).await;
    page.fill("#count", &count.to_string()).await;
    page.click("#submit-form button").await;
    page.eventually("that jobs are submitted", "return document.querySelector('#submit-said.good')?.textContent").await;
}

fn mode(service: &Service) -> Value {
    service.queue()["policy"]["mode"].clone()
}

#[tokio::test]
async fn a_deferral_appears_without_a_reload() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        page.eval("window.since = 'the first load'").await;
        assert_eq!(page.eval("return document.querySelectorAll('#happened-list [data-kind=verdict]').length").await, 0);
        submit(page, "default", 1).await;

        let item = "const item = document.querySelector('#happened-list li:has([data-kind=verdict])'); return item && ";
        let badge = page.eventually("a deferral", &format!("{item} item.querySelector('.badge').textContent")).await;
        assert_eq!(badge, "deferral");
        let text = page.eval(&format!("{item} item.querySelector('.text').textContent")).await;
        assert!(text.as_str().unwrap().starts_with("defers, owned by run 1 in "), "{text}");
        let link = page.eval(&format!("{item} item.querySelector('a.id').getAttribute('href')")).await;
        assert_eq!(link, "#/job/1");
        assert!(page.text("#announcer").await.contains("owned"));

        let said = page
            .eventually(
                "the row's reason",
                "const said = document.querySelector('tr.late .said-of')?.textContent;
                 return said?.includes('deferred') && said;",
            )
            .await;
        let said = said.as_str().unwrap().replace('\u{a0}', " ");
        assert!(said.starts_with("past grace, deferred: owned by run 1 at test for "), "{said}");

        // The job ends, the row and the counters say so, the deferral stays to be read.
        page.eventually("the end", "return document.querySelector('[data-count=merged] dd').textContent === '1'").await;
        page.eventually("an empty row", "return document.querySelectorAll('tr[data-job]').length === 0").await;
        assert_eq!(service.queue()["counts"]["merged"], 1);
        assert_eq!(page.eval("return window.since").await, "the first load");
        assert_ne!(page.eval("return document.querySelectorAll('#happened-list [data-kind=verdict]').length").await, 0);
    })
    .await;
}

#[tokio::test]
async fn running_jobs_have_stage_owner_and_bars() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        submit(page, "long", 3).await;
        submit(page, "slow", 1).await;
        let slow = "tr.nobody[data-stage=process][data-job='4']";
        page.eventually("its process", &format!("return document.querySelector({}) !== null", json!(slow))).await;
        assert_eq!(page.text(&format!("{slow} .whose")).await, "no owner");
        assert_eq!(page.text(&format!("{slow} .said-of")).await, "not finished");
        page.eventually(
            "all at the gate",
            "return document.querySelectorAll('tr[data-stage=test][data-job]').length === 3",
        )
        .await;
        let queue = service.queue();
        let job = &queue["running"]["test"][0];
        let row = format!("tr[data-job='{}']", job["job"]);
        assert_eq!(page.text(&format!("{row} .whose")).await, format!("run {} at test", job["run"]));
        assert_eq!(page.text(&format!("{row} td.job .second")).await, format!("long, run {}", job["run"]));
        let held = page.text(&format!("{row} td.owner .second")).await;
        assert!(held.starts_with(&format!("gen. {} · ", job["owner"]["generation"])), "{held}");
        assert_eq!(page.text("#stages [data-stage=test] .stage-count").await, "3");
        assert_eq!(page.text("[data-count=owned] dd").await, "3");

        // Both bars show what the numbers beside them say.
        let bars = format!(
            "const row = document.querySelector({});
             const part = (name) => {{ const bar = row.querySelector('.' + name);
                 return bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width; }};
             return ['within', 'past', 'whole'].map(part)
                 .concat([...row.querySelectorAll('.gauge b')].map((age) => parseFloat(age.textContent)));",
            json!(row)
        );
        let read = async || serde_json::from_value::<[f64; 5]>(page.eval(&bars).await).unwrap();
        page.eventually(
            "past its grace",
            &format!("return document.querySelector({}) !== null", json!(format!("{row}.late"))),
        )
        .await;
        let [within, past, whole, finished, running] = read().await;
        assert!((within - 0.4).abs() < 0.01, "the grace is over: {within}");
        let process = running - finished;
        assert!((past - 0.6 * (finished - 1.0) / (60.0 - process - 1.0)).abs() < 0.01, "{past}, {finished} s");
        assert!((whole - running / 60.0).abs() < 0.01, "{whole}, {running} s");
        // Ages go on in step with time, whether or not the server says something.
        pause(1.5).await;
        let [_, later_past, later_whole, later_finished, later_running] = read().await;
        assert!(later_past > past && later_whole > whole, "{later_past}, {later_whole}");
        assert!(
            later_finished >= finished + 1.3 && later_running >= running + 1.3,
            "{later_finished}, {later_running}"
        );
        let told = &service.queue()["running"]["test"][0]["running_ms"];
        let shown = read().await[4];
        assert!((shown - told.as_f64().unwrap() / 1000.0).abs() < 1.0, "shown {shown}, told {told}");
    })
    .await;
}

/// What a row says of what the reaper does next.
fn coming(job: u32) -> String {
    format!(
        "return document.querySelector('tr[data-job=\"{job}\"] .coming')?.textContent.replaceAll('\u{a0}', ' ') ?? ''"
    )
}

#[tokio::test]
async fn what_comes_next_is_counted_down() {
    let limits = "hard_deadline = 60.0\nstale_after = 6.0\nmax_redrives = 0";
    let service = Service::start(&SETTINGS.replace("hard_deadline = 60.0", limits));
    visit(&service.origin(), &[], async |page| {
        submit(page, "slow", 1).await;
        submit(page, "long", 1).await;
        // The process of the first one runs: only the backstop is ahead.
        let text = page.eventually("the backstop", &coming(1)).await;
        page.eventually(
            "the seconds",
            "return /^reaped in [0-9]+ s unless it commits$/.test(document.querySelector('tr[data-job=\"1\"] .coming')
                 .textContent.replaceAll('\u{a0}', ' '))",
        )
        .await;
        pause(1.5).await;
        assert_ne!(page.eval(&coming(1)).await, text, "it goes on by itself");
        // The second one hangs in its gate, and may not be redriven.
        page.eventually(
            "the end of its pulse",
            "return /^reaped in [0-9.]+ s, redrives exhausted, unless it commits$/.test(
                 document.querySelector('tr[data-job=\"2\"] .coming')?.textContent.replaceAll('\u{a0}', ' '))",
        )
        .await;
        page.keep_screenshot("next").await;
        page.eventually("its end", "return document.querySelector('[data-count=exhausted] dd').textContent === '1'")
            .await;
        assert_eq!(service.queue()["reaper"]["reaps_redrives_exhausted"], 1);
        page.eventually("the job's end", "return document.querySelector('[data-count=reaped] dd').textContent === '1'")
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_is_shown_as_one() {
    let service = Service::start(&SETTINGS.replace("hard_deadline = 60.0", "hard_deadline = 5.0"));
    visit(&service.origin(), &[], async |page| {
        page.eventually("the mode in force", "return document.querySelector('[data-mode=honor] :checked') !== null")
            .await;
        page.fill("#token", TOKEN).await;
        page.click(".mode[data-mode=dry_run]").await;
        page.click("#apply").await;
        page.eventually("the answer", "return document.querySelector('#mode-said.good')?.textContent").await;
        submit(page, "slow", 1).await;
        page.eventually(
            "what would come",
            "return document.querySelector('tr[data-job] .coming')?.textContent.startsWith('would be reaped in ')",
        )
        .await;
        page.eventually("the verdict", "return document.querySelector('tr[data-job].proposed') !== null").await;
        assert_eq!(page.eval(&coming(1)).await, "dry run: would be reaped");
        page.keep_screenshot("dry-run").await;
        let queue = service.queue();
        assert_eq!(queue["running"]["process"][0]["dry_run"], "reap, backstop");
        assert_eq!((&queue["reaper"]["reaps_backstop"], &queue["counts"]["running"]), (&json!(0), &json!(1)));
    })
    .await;
}

#[tokio::test]
async fn the_mode_is_switched_by_mouse() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        page.eventually("the mode in force", "return document.querySelector('[data-mode=honor] :checked') !== null")
            .await;
        page.fill("#token", TOKEN).await;
        page.click(".mode[data-mode=ignore]").await;
        // A choice alone changes nothing.
        assert_eq!(page.text("#apply").await, "Put Ignore in force");
        assert_eq!(mode(&service), "honor");
        page.click("#apply").await;
        page.eventually("the answer", "return document.querySelector('#mode-said.good')?.textContent").await;
        assert_eq!(mode(&service), "ignore");
        assert_eq!(page.text("#in-force-mode").await, "Ignore");
        assert!(page.text("#warning").await.starts_with("Ignore is in force"));
        assert_eq!(page.eval("return document.querySelector('#warning').checkVisibility()").await, true);
        assert_eq!(
            page.eval("return document.querySelector('.mode[data-mode=ignore] .tag').checkVisibility()").await,
            true
        );

        // And back. The token is kept for this tab, and nowhere else.
        page.go(&service.origin()).await;
        page.eventually("the mode in force", "return document.querySelector('[data-mode=ignore] :checked') !== null")
            .await;
        page.click(".mode[data-mode=honor]").await;
        page.click("#apply").await;
        page.eventually("the answer", "return document.querySelector('#mode-said.good')?.textContent").await;
        assert_eq!(mode(&service), "honor");
        assert_eq!(page.eval("return document.querySelector('#warning').checkVisibility()").await, false);
        assert_eq!(page.eval("return [localStorage.length, document.cookie]").await, json!([0, ""]));
    })
    .await;
}

#[tokio::test]
async fn everything_is_reached_by_keyboard() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        page.eventually("the mode in force", "return document.querySelector('[data-mode=honor] :checked') !== null").await;
        // Where the focus is, and whether that can be seen.
        let focus = "const at = document.activeElement;
            const ring = at.closest('.mode') ?? at;
            const style = getComputedStyle(ring);
            return [at.closest('[data-count]')?.dataset.count || at.dataset.tab || at.id || at.value || at.className || at.textContent.trim() || at.tagName, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];";
        let mut order = Vec::new();
        loop {
            page.press(Key::Tab).await;
            let (name, seen): (String, bool) = serde_json::from_value(page.eval(focus).await).unwrap();
            assert!(seen, "the focus cannot be seen at {name}, after {order:?}");
            if name == "apply" {
                break;
            }
            match name.as_str() {
                "token" => page.r#type(TOKEN).await,
                "honor" => page.press(Key::Down).await,
                _ => {}
            }
            order.push(name);
            assert!(order.len() < 60, "never reaches the button: {order:?}");
        }
        let skips = [
            "Skip to what needs attention",
            "Skip to the jobs",
            "Skip to what happened",
            "Skip to the mode switch",
        ];
        let counters = ["queued", "running", "owned", "merged", "rolled_back", "reaped", "defers", "redrives"];
        let reaps = ["lost", "backstop", "exhausted"];
        let jobs = ["running", "queued", "ended", "search", "filter-kind", "filter-owner", "filter-past"];
        let rest = ["happened-kind", "scroller", "Control", "token", "by", "honor", "during"];
        let expected = [&skips[..], &["in-force"], &counters, &reaps, &jobs, &["stage"; 5], &rest].concat();
        assert_eq!(order, expected);
        assert_eq!(page.text("#apply").await, "Put Defer all in force");
        assert_eq!(mode(&service), "honor");
        page.press(Key::Enter).await;
        page.eventually("the answer", "return document.querySelector('#mode-said.good')?.textContent").await;
        assert_eq!(mode(&service), "defer_all");
        // The focus is not lost, and the other form is next.
        for next in ["kind", "count"] {
            page.press(Key::Tab).await;
            assert_eq!(page.eval("return document.activeElement.id").await, next);
        }
        page.press(Key::Tab).await;
        page.press(Key::Enter).await;
        page.eventually("the answer", "return document.querySelector('#submit-said.good')?.textContent").await;
        let counts = &service.queue()["counts"];
        assert_eq!(counts["queued"].as_u64().unwrap() + counts["running"].as_u64().unwrap(), 3, "{counts}");

        // A skip link moves the focus past what it skips.
        page.eval("document.activeElement.blur(); scrollTo(0, 0)").await;
        page.go(&service.origin()).await;
        for _ in skips {
            page.press(Key::Tab).await;
        }
        page.press(Key::Enter).await;
        page.press(Key::Tab).await;
        assert_eq!(page.eval("return document.activeElement.id").await, "token");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_token_is_told_and_changes_nothing() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[REFUSED], async |page| {
        page.eventually("the mode in force", "return document.querySelector('[data-mode=honor] :checked') !== null")
            .await;
        for token in ["", "wrong"] {
            page.fill("#token", token).await;
            page.click(".mode[data-mode=ignore]").await;
            page.click("#apply").await;
            let told =
                page.eventually("the refusal", "return document.querySelector('#token-error').textContent").await;
            assert!(told.as_str().unwrap().contains("token"), "{told}");
            assert_eq!(page.eval("return document.querySelector('#token').ariaInvalid").await, "true");
            assert_eq!(page.eval("return document.activeElement.id").await, "token");
            // What was chosen stays chosen, to be sent again with another token. Nothing was done.
            page.eventually("the answer", "return document.querySelector('#mode-said.bad')").await;
            assert_eq!(page.eval("return document.querySelector('[data-mode=ignore] :checked') !== null").await, true);
            assert_eq!(page.text("#apply").await, "Put Ignore in force");
            assert_eq!(mode(&service), "honor");
        }
        // What a header cannot carry is not sent.
        page.fill("#token", "schlüssel").await;
        assert_eq!(page.text("#token-error").await, "");
        page.click(".mode[data-mode=ignore]").await;
        page.click("#apply").await;
        page.eventually("the refusal", "return document.querySelector('#token-error').textContent.includes('ASCII')")
            .await;
        assert_eq!(mode(&service), "honor");
    })
    .await;
}

#[tokio::test]
async fn a_lost_server_is_told_and_found_again() {
    let mut service = Service::start(SETTINGS);
    visit(&service.origin(), &[GONE], async |page| {
        page.eventually("the connection", "return document.querySelector('#link').dataset.state === 'live'").await;
        submit(page, "long", 1).await;
        page.eventually("the job", "return document.querySelector('tr[data-job]') !== null").await;
        assert_eq!(page.eval("return document.querySelector('#lost').checkVisibility()").await, false);

        service.stop();
        page.eventually("the loss", "return document.querySelector('#link').dataset.state === 'reconnecting'").await;
        assert_eq!(page.text("#link-text").await, "reconnecting");
        assert!(page.text("#lost").await.starts_with("Connection lost. What you see is of "));
        assert_eq!(page.eval("return document.querySelector('#lost').checkVisibility()").await, true);
        // What is not known does not go on.
        let ages = "return [...document.querySelectorAll('tr[data-job] .gauge b')].map((age) => age.textContent)";
        let before = page.eval(ages).await;
        pause(1.0).await;
        assert_eq!(page.eval(ages).await, before);

        service.resume();
        page.eventually("the connection", "return document.querySelector('#link').dataset.state === 'live'").await;
        assert_eq!(page.eval("return document.querySelector('#lost').checkVisibility()").await, false);
        // The job was running, is queued again, and runs again.
        page.eventually("the job", "return document.querySelector('tr[data-stage=test][data-job=\"1\"]') !== null")
            .await;
    })
    .await;
}

/// Every text on the page is legible, and these elements are among those looked at. Keeps a picture.
async fn assert_legible(page: &Chromium, state: &str, among: &[&str]) {
    for (scheme, ground) in [("light", "rgb(244, 244, 241)"), ("dark", "rgb(15, 18, 20)")] {
        page.screen(1440, 900, scheme).await;
        pause(0.5).await;
        assert_eq!(page.eval("return getComputedStyle(document.body).backgroundColor").await, ground);
        let measured = page.eval(include_str!("contrast.js")).await;
        page.keep_screenshot(&format!("{state}-{scheme}")).await;
        let measured = measured.as_array().unwrap();
        let always =
            ["h1", "#in-force-mode", "#link-text", "dt", "dd", "th.stage", ".hint", ".name", ".means", "#apply"];
        for part in always.iter().chain(among) {
            let found = |one: &Value| one["where"].as_str().unwrap().contains(part);
            assert!(measured.iter().any(found), "{state}, {scheme}: {part} was not measured");
        }
        let faint: Vec<_> = measured.iter().filter(|one| one["contrast"].as_f64().unwrap() < 4.5).collect();
        assert!(faint.is_empty(), "{state}, {scheme}: {faint:#?}");
    }
}

#[tokio::test]
async fn light_and_dark_are_legible() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[REFUSED], async |page| {
        submit(page, "default", 4).await;
        submit(page, "long", 3).await;
        page.eventually("deferrals", "return document.querySelectorAll('tr.late').length >= 5").await;
        page.eventually(
            "their news",
            "return document.querySelectorAll('#happened-list [data-kind=verdict]').length > 0",
        )
        .await;
        submit(page, "default", 4).await;
        let jobs = [".id", ".whose", ".second.said-of", ".badge", ".text", "time"];
        assert_legible(page, "usual", &jobs).await;

        page.click(".mode[data-mode=ignore]").await;
        assert_legible(page, "danger", &[&jobs[..], &[".hazard", "#apply.danger"]].concat()).await;

        page.click("#apply").await;
        page.eventually("the strip", "return document.querySelector('#warning').checkVisibility()").await;
        page.fill("#token", "wrong").await;
        page.click(".mode[data-mode=dry_run]").await;
        page.click("#apply").await;
        page.eventually("the refusal", "return document.querySelector('#token-error').textContent").await;
        assert_legible(page, "refused", &["#warning", "#token-error", "#mode-said.said.bad"]).await;
    })
    .await;
}

#[tokio::test]
async fn narrow_screens_scroll_only_one_way() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        submit(page, "long", 3).await;
        page.eventually("deferrals", "return document.querySelectorAll('tr.late').length >= 3").await;
        for (width, name) in [(360, "narrow"), (720, "tablet"), (1100, "small"), (1920, "wide")] {
            page.screen(width, 780, "light").await;
            pause(0.3).await;
            assert_eq!(page.eval("return document.documentElement.clientWidth").await, width);
            let beyond = page
                .eval(
                    "const { clientWidth, scrollWidth } = document.documentElement;
                     const beyond = [...document.body.querySelectorAll('*')].filter((element) => element.checkVisibility()
                         && !element.closest('.skip, .unseen, thead') && element.getBoundingClientRect().right > clientWidth + 1);
                     return [scrollWidth - clientWidth, beyond.map((element) => element.outerHTML.slice(0, 100))];",
                )
                .await;
            assert_eq!(beyond, json!([0, []]), "at {width} pixels");
            page.keep_screenshot(name).await;
        }
    })
    .await;
}

#[tokio::test]
async fn names_are_text_not_markup() {
    let name = "<img src=x onerror='window.broken=1'>";
    // The second is what every object of JavaScript has.
    let gates =
        ["constructor", name].map(|gate| format!("{{ name = \"{gate}\", command = [\"sleep\", \"2\"] }}")).join(", ");
    let settings = format!("{SETTINGS}\n[kinds.\"{name}\"]\ngates = [{gates}]\n");
    let service = Service::start(&settings);
    visit(&service.origin(), &[], async |page| {
        submit(page, name, 1).await;
        page.eventually("the deferral", "return document.querySelector('#happened-list [data-kind=verdict]')").await;
        let text = "#happened-list li:has([data-kind=verdict]) .text";
        assert_eq!(page.text(text).await, "defers, owned by run 1 in constructor");
        page.eventually(
            "the other gate, in the row",
            &format!("return document.querySelector('tr[data-job] .whose code').textContent === {}", json!(name)),
        )
        .await;
        assert_eq!(page.text("tr[data-job] td.job .second").await, format!("{name}, run 1"));
        assert_eq!(page.eval("return [document.images.length, window.broken ?? 0]").await, json!([1, 0]));
    })
    .await;
}

#[tokio::test]
async fn many_jobs_are_few_rows_that_stay() {
    let service = Service::start(&SETTINGS.replace("monitors = 8", "monitors = 60"));
    visit(&service.origin(), &[], async |page| {
        submit(page, "long", 60).await;
        page.eventually(
            "all at the gate",
            "return document.querySelector('#running-shown')?.textContent === '12 of 60'",
        )
        .await;
        let rows =
            "return [...document.querySelectorAll('tr[data-job]')].map((row) => [row.dataset.job, row.note ?? ''])";
        page.eval("for (const row of document.querySelectorAll('tr[data-job]')) row.note = row.dataset.job").await;
        pause(2.5).await; // at least one whole state later
        let rows: Vec<[String; 2]> = serde_json::from_value(page.eval(rows).await).unwrap();
        assert_eq!(rows.len(), 12);
        assert!(rows.iter().all(|[job, note]| job == note), "rows were made anew, or moved: {rows:?}");
        // What is the same of many is one entry.
        page.eventually(
            "what happened to all of them",
            "const text = document.querySelector('#happened-list li:has([data-kind=verdict]) .many:not([hidden])')?.textContent;
             return text === '60 jobs'",
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_browser_is_an_error_that_says_what_to_install() {
    for (driver, browser) in [("no-such-driver", "chromium"), ("chromedriver", "no-such-browser")] {
        let error = Chromium::launch(driver, browser).await.map(drop).unwrap_err();
        assert!(error.contains("no-such") && error.contains(INSTALL), "{error}");
    }
}
