//! What the page says in an incident: what is due, what a mode would do, and that it is not alone.

use std::io::{Read, Write};
use std::net::TcpStream;

use orchestrator_browser::chromium::{Chromium, visit};
use orchestrator_browser::service::{Service, TOKEN};

/// A gate that waits for longer than the grace, and one that never ends.
const SETTINGS: &str = r#"
job.command = ["true"]
gates = [{ name = "build", command = ["sleep", "0.2"] }, { name = "test", command = ["sleep", "50"] }]
[limits]
finalize_grace = 0.5
hard_deadline = 40.0
sweep_every = 0.05
process = 60.0
monitors = 24
"#;

async fn live(page: &Chromium) {
    page.eventually("the connection", "return document.querySelector('#link').dataset.state === 'live'").await;
}

async fn submit(page: &Chromium, count: u32) {
    page.fill("#token", TOKEN).await;
    page.fill("#count", &count.to_string()).await;
    page.click("#submit-form button").await;
    page.eventually("the answer", "return document.querySelector('#submit-said.good')?.textContent").await;
}

/// Seen to fail with a page that waits for a first job before it shows anything.
#[tokio::test]
async fn an_idle_service_is_shown_as_idle() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        page.eventually("the stages", "return document.querySelectorAll('#stages li').length === 5").await;
        assert_eq!(page.text("#running-empty").await, "No job is running.");
        assert_eq!(page.text("#attention-empty").await, "Nothing is due.");
        page.keep_screenshot("idle").await;
    })
    .await;
}

/// Seen to fail with stages in the order in which they were first seen.
#[tokio::test]
async fn stages_are_in_order_also_for_who_comes_late() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        submit(page, 2).await;
        page.eventually(
            "both at the last gate",
            "return document.querySelectorAll('tr[data-stage=test]').length === 2",
        )
        .await;
        page.go(&service.origin()).await;
        live(page).await;
        page.eventually("the stages", "return document.querySelector('#stages li') !== null").await;
        let stages =
            "return [...document.querySelectorAll('#stages li')].map((stage) => stage.dataset.stage).join(' ')";
        assert_eq!(page.eval(stages).await, "process finalize build test commit");
    })
    .await;
}

/// Seen to fail with a number of rows, and no way to the others.
#[tokio::test]
async fn every_job_of_a_stage_can_be_seen() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        submit(page, 24).await;
        page.eventually(
            "all at the last gate",
            "return document.querySelector('#stages [data-stage=test] .stage-count')?.textContent === '24'",
        )
        .await;
        page.click("#running-all").await;
        page.eventually("all of them", "return document.querySelectorAll('tr[data-stage=test]').length === 24").await;
        assert_eq!(page.text("#running-all").await, "Show fewer");
        page.click("#running-all").await;
        page.eventually("twelve of them", "return document.querySelectorAll('tr[data-stage=test]').length === 12")
            .await;
        // As many are owned as run: both are of one instant.
        page.eventually("the counters", "return document.querySelector('[data-count=owned] dd').textContent === '24'")
            .await;
        assert_eq!(page.text("[data-count=running] dd").await, "24");
    })
    .await;
}

#[tokio::test]
async fn what_is_due_is_on_top_and_told_by_the_clock() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        submit(page, 7).await;
        page.eventually(
            "five that are due",
            "return document.querySelectorAll('#attention-list li[data-job]:not(.vacant)').length === 5",
        )
        .await;
        page.eventually(
            "when, by the clock and from now",
            "return /^reaped at [0-9]{2}:[0-9]{2}:[0-9]{2}, in [0-9.]+ s, unless it commits$/.test(
                 document.querySelector('#attention-list .what').textContent.replaceAll('\u{a0}', ' '))",
        )
        .await;
        page.eventually("whose", "return document.querySelector('#attention-list .second').textContent.startsWith('owned by run 1 at ')").await;
        page.keep_screenshot("incident").await;
        // Told by the server, in its order.
        let shown = page.eval("return [...document.querySelectorAll('#attention-list .id')].map((id) => Number(id.textContent.slice(1)))").await;
        let told = service.queue()["attention"].as_array().unwrap()[..5].to_vec();
        assert_eq!(shown, serde_json::Value::Array(told));
    })
    .await;
}

/// Seen to fail with a mode that is chosen by its description alone.
#[tokio::test]
async fn a_mode_tells_what_it_would_do_and_until_when_it_is() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        submit(page, 3).await;
        page.eventually("all deferred", "return document.querySelectorAll('tr[data-job].late').length === 3").await;
        page.click(".mode[data-mode=ignore]").await;
        page.eventually(
            "what it would do",
            "return document.querySelector('#preview').textContent === 'Ignore would redrive 3 live jobs now.'",
        )
        .await;
        page.keep_screenshot("preview").await;
        page.click(".mode[data-mode=defer_all]").await;
        page.eventually(
            "what it would do",
            "return document.querySelector('#preview').textContent === 'Defer all would do nothing now.'",
        )
        .await;
        page.eval("document.querySelector('#during').value = '15m'").await;
        page.click("#apply").await;
        let said = page.eventually("the answer", "return document.querySelector('#mode-said.good')?.textContent").await;
        assert!(said.as_str().unwrap().starts_with("Defer all is in force until "), "{said}");
        page.eventually(
            "until when",
            "return /^until [0-9:]{8}, for 1[45]/.test(document.querySelector('#in-force-until').textContent)",
        )
        .await;
        let queue = service.queue();
        assert_eq!((&queue["policy"]["mode"], &queue["override"]["then"]), (&"defer_all".into(), &"honor".into()));
        page.keep_screenshot("until").await;
    })
    .await;
}

/// Seen to fail with a page that said that the server does not answer.
#[tokio::test]
async fn one_watcher_too_many_is_told_and_asks_instead() {
    let service = Service::start(SETTINGS);
    let address = service.origin().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let watchers: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            assert!(stream.read(&mut [0; 100]).unwrap() > 0);
            stream
        })
        .collect();
    let noise = "/events - Failed to load resource: the server responded with a status of 503";
    visit(&service.origin(), &[noise], async |page| {
        page.eventually(
            "what is the matter",
            "return document.querySelector('#lost').textContent.startsWith('Too many are watching.')",
        )
        .await;
        submit(page, 2).await;
        page.eventually("the jobs all the same", "return document.querySelectorAll('tr[data-job]').length === 2").await;
        drop(watchers);
        live(page).await;
        assert_eq!(page.eval("return document.querySelector('#lost').checkVisibility()").await, false);
    })
    .await;
}

/// Layout shifts as the browser counts them, without those that a user's own action brings. Seen to fail at 0.12 with a list
/// of deferrals in which each new one pushes the others down.
#[tokio::test]
async fn a_busy_page_stands_still() {
    let settings = SETTINGS.replace(r#"["sleep", "50"]"#, r#"["sleep", "1"]"#);
    let service = Service::start(&settings);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        page.eval(
            "window.shifts = [];
             new PerformanceObserver((list) => window.shifts.push(...list.getEntries().filter((entry) => !entry.hadRecentInput)
                 .map((entry) => [entry.value, ...entry.sources.map(({ node }) => node?.id || node?.className || node?.nodeName)]))).observe({ type: 'layout-shift', buffered: true })",
        )
        .await;
        for _ in 0..3 {
            service.submit(r#"{"count":6}"#);
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        }
        page.eventually("the end of all", "return document.querySelector('[data-count=merged] dd').textContent === '18'").await;
        // Also when the table closes ranks.
        page.eventually("an empty table", "return document.querySelectorAll('tbody tr').length === 0").await;
        let total = page.eval("return window.shifts.reduce((sum, [shift]) => sum + shift, 0)").await;
        let shifts = page.eval("return window.shifts").await;
        assert!(total.as_f64().unwrap() < 0.05, "shifted by {total}: {shifts}");
    })
    .await;
}

#[tokio::test]
async fn one_stage_is_shown_alone() {
    let service = Service::start(&format!("{SETTINGS}\n[kinds.slow]\njob.command = [\"sleep\", \"50\"]\n"));
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        service.submit(r#"{"kind":"slow","count":2}"#);
        service.submit(r#"{"count":3}"#);
        page.eventually("all of them", "return document.querySelectorAll('tr[data-job]').length === 5 && document.querySelectorAll('tr[data-stage=test]').length === 3").await;
        page.click("#stages [data-stage=process] button").await;
        page.eventually("two of them", "return document.querySelectorAll('tr[data-job]').length === 2").await;
        page.click("#stages [data-stage=commit] button").await;
        page.eventually("none", "return document.querySelector('#running-empty').textContent === 'No job is at commit.'").await;
        page.click("#stages [data-stage=commit] button").await;
        page.eventually("all of them", "return document.querySelectorAll('tr[data-job]').length === 5").await;
    })
    .await;
}

/// What the README shows, by the commands that it shows: the settings as they are built in, and jobs of two kinds.
#[tokio::test]
async fn the_picture_of_the_readme() {
    let service = Service::start("");
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        service.submit(r#"{"kind":"hang"}"#);
        service.submit(r#"{"count":6}"#);
        page.eventually("deferrals", "return document.querySelectorAll('tr[data-job].late').length >= 3").await;
        page.keep_screenshot("readme").await;
    })
    .await;
}
