//! What axe finds on the page: nothing that keeps people from using it.
//!
//! `AXE` names the script, which `.ci/axe` fetches.

use std::io::Write;

use orchestrator_browser::chromium::{Chromium, visit};
use orchestrator_browser::service::{Service, TOKEN};
use serde_json::{Value, json};

const SETTINGS: &str = r#"
job.command = ["true"]
gates = [{ name = "build", command = ["sleep", "0.2"] }, { name = "test", command = ["sleep", "50"] }]
[limits]
finalize_grace = 0.5
hard_deadline = 40.0
sweep_every = 0.05
process = 60.0

[kinds.quick]
gates = [{ name = "build", command = ["true"] }]
"#;

/// Every rule that axe has on by default, in both palettes and on two screens.
async fn assert_no_finding(page: &Chromium, axe: &str, state: &str) {
    for (width, height, scheme) in [(1440, 900, "light"), (1440, 900, "dark"), (390, 844, "light")] {
        page.screen(width, height, scheme).await;
        page.eval(axe).await;
        let found = page
            .eval_async(
                "const done = arguments[arguments.length - 1];
                 axe.run(document, { resultTypes: ['violations'] }).then((result) => done({
                     passes: result.passes.length,
                     violations: result.violations.map(({ id, help, nodes }) => [id, help, nodes.map((node) => node.html.slice(0, 200))]),
                 }), (error) => done({ error: String(error) }));",
            )
            .await;
        assert!(found["passes"].as_u64().is_some_and(|passes| passes > 10), "{state}: {found}");
        assert_eq!(found["violations"], json!([]), "{state}, {width} pixels, {scheme}");
    }
}

/// Seen to fail with a search field that has no name, and with a list whose heading level skips one.
#[tokio::test]
async fn axe_finds_nothing() {
    let Some(path) = std::env::var_os("AXE") else {
        // Not by a macro, whose output is kept from whoever reads a log.
        writeln!(std::io::stderr(), "NOT CHECKED: the page by axe (AXE names no script: see .ci/axe)").unwrap();
        return;
    };
    let axe = std::fs::read_to_string(path).expect("AXE names a script");
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        page.eventually("the connection", "return document.querySelector('#link').dataset.state === 'live'").await;
        assert_no_finding(page, &axe, "idle").await;
        service.submit(r#"{"count":5}"#);
        service.submit(r#"{"kind":"quick","count":3}"#);
        page.eventually("jobs past their grace", "return document.querySelectorAll('tr[data-job].late').length === 5")
            .await;
        page.eventually("their story", "return document.querySelector('.many:not([hidden])')").await;
        page.click("#happened-list .many:not([hidden])").await;
        page.fill("#token", TOKEN).await;
        page.click(".mode[data-mode=ignore]").await;
        page.eventually("what it would do", "return document.querySelector('#preview').textContent").await;
        assert_no_finding(page, &axe, "busy").await;
        page.eval("location.hash = '#/jobs?state=ended'").await;
        page.eventually("the ended", "return document.querySelectorAll('tr[data-other]').length === 3").await;
        assert_no_finding(page, &axe, "ended").await;
        page.eval("location.hash = '#/job/1'").await;
        page.eventually("its line", "return document.querySelector('.bars .gate')").await;
        page.click("#story [data-output]").await;
        page.eventually("its output", "return document.querySelector('#output-text').textContent").await;
        assert_no_finding(page, &axe, "job").await;
        let _: Value = service.change("PUT", "/policy", r#"{"mode":"ignore"}"#);
        page.eval("location.hash = '#/jobs'").await;
        page.eventually("the warning", "return document.querySelector('#warning').checkVisibility()").await;
        assert_no_finding(page, &axe, "a warning").await;
    })
    .await;
}
