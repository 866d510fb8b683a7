//! Jobs, as an operator looks for them: by search and filter, in lists of those that have ended, on a page of their own,
//! and in the feed of all that happened.

use orchestrator_browser::chromium::{Chromium, visit};
use orchestrator_browser::service::{Service, TOKEN};
use serde_json::{Value, json};

const SETTINGS: &str = r#"
job.command = ["sh", "-c", "echo the process speaks"]
gates = [
    { name = "build", command = ["sh", "-c", "echo built; sleep 0.4"] },
    { name = "test", command = ["sh", "-c", "echo tested half; sleep 50"] },
]
[limits]
finalize_grace = 0.5
hard_deadline = 40.0
sweep_every = 0.05
process = 60.0
monitors = 8

[kinds.quick]
gates = [{ name = "build", command = ["true"] }]

[kinds.red]
gates = [{ name = "build", command = ["sh", "-c", "echo it does not compile; exit 3"] }]

[kinds.slow]
job.command = ["sleep", "50"]
"#;

async fn live(page: &Chromium) {
    page.eventually("the connection", "return document.querySelector('#link').dataset.state === 'live'").await;
}

async fn hash(page: &Chromium) -> String {
    page.eval("return location.hash").await.as_str().unwrap().to_owned()
}

/// Waits until the element's text is this.
async fn says(page: &Chromium, css: &str, text: &str) {
    let script = format!(
        "return document.querySelector({})?.textContent.replaceAll('\u{a0}', ' ') === {}",
        json!(css),
        json!(text)
    );
    page.eventually(&format!("{text:?} in {css}"), &script).await;
}

/// The ids of the jobs that are listed, the running ones or the others.
async fn listed(page: &Chromium) -> Vec<u64> {
    let ids =
        "return [...document.querySelectorAll('tr[data-job], tr[data-other]')].filter((row) => row.checkVisibility())
        .map((row) => Number(row.dataset.job ?? row.dataset.other))";
    serde_json::from_value(page.eval(ids).await).unwrap()
}

async fn lists(page: &Chromium, jobs: &[u64]) {
    let script = format!(
        "const rows = [...document.querySelectorAll('tr[data-job], tr[data-other]')].filter((row) => row.checkVisibility());
         return JSON.stringify(rows.map((row) => Number(row.dataset.job ?? row.dataset.other))) === {}",
        json!(json!(jobs).to_string())
    );
    page.eventually(&format!("the jobs {jobs:?}"), &script).await;
}

/// Seen to fail with a page that has no place for a job, and with bars of equal length.
#[tokio::test]
async fn a_job_has_a_page_with_its_time_line_to_scale() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        service.submit("{}");
        page.eventually("the job past its grace", "return document.querySelector('tr[data-job=\"1\"].late')").await;
        page.click("tr[data-job='1'] a.id").await;
        assert_eq!(hash(page).await, "#/job/1");
        says(page, "#job-title", "Job 1").await;
        says(page, "#job-state", "running").await;
        page.eventually(
            "what comes next, by the clock",
            "return /^Next: reaped at [0-9:]{8}, in [0-9.]+ s, unless it commits[.]$/.test(
                 document.querySelector('#job-next').textContent.replaceAll('\u{a0}', ' '))",
        )
        .await;
        page.eventually(
            "why it is left alone",
            "return document.querySelector('#job-verdict').textContent.startsWith('job 1: finished: defer, owned by run 1 at `test`')",
        )
        .await;
        let fact = |name: &str| {
            format!(
                "return [...document.querySelectorAll('#job-facts div')].find((fact) => fact.querySelector('dt').textContent === '{name}')
                     ?.querySelector('dd').textContent"
            )
        };
        let owner = page.eval(&fact("Owner")).await;
        assert!(owner.as_str().unwrap().starts_with("run 1 at test, generation "), "{owner}");
        page.keep_screenshot("job").await;

        // Two bars are as far apart, and as long, as the times that they show.
        let told = service.get("/jobs/1");
        let (run, build) = (&told["runs"][0], &told["runs"][0]["tasks"][0]);
        let at = |value: &Value| value.as_f64().unwrap();
        let long = at(&told["deadline_at_ms"]) - at(&run["started_at_ms"]);
        let read = "const line = document.querySelector('.bars').getBoundingClientRect();
            const of = (css) => { const box = document.querySelector(css).getBoundingClientRect();
                return [(box.left - line.left) / line.width, box.width / line.width]; };
            return [of('.bars .gate[data-result=green]'), of('.instant.deadline'), of('.instant.stamp')]";
        let [[from, wide], [deadline, _], [stamp, _]]: [[f64; 2]; 3] =
            serde_json::from_value(page.eval(read).await).unwrap();
        let share = |ms: f64| ms / (long * 1.02);
        let close = |shown: f64, is: f64, what: &str| assert!((shown - is).abs() < 0.005, "{what}: {shown}, not {is}");
        close(from, share(at(&build["started_at_ms"]) - at(&run["started_at_ms"])), "the begin of the gate");
        close(wide, share(at(&build["ended_at_ms"]) - at(&build["started_at_ms"])), "the gate");
        close(deadline, share(long), "the deadline");
        close(stamp, share(at(&run["stamped_at_ms"]) - at(&run["started_at_ms"])), "the stamp");

        // The same in words, with what is still to come.
        let story = "return [...document.querySelectorAll('#story li')].map((item) => item.querySelector('.what').firstChild.textContent)";
        let story: Vec<String> = serde_json::from_value(page.eval(story).await).unwrap();
        let mut rest = story.iter();
        for told in ["submitted", "starts the job's process", "its process finished, exit code 0", "gate build: green", "defers, owned by run 1"] {
            assert!(rest.any(|said| said.starts_with(told)), "{told:?} is not next in {story:#?}");
        }
        let to_come = page.eval("return [...document.querySelectorAll('#story .to-come .what')].map((what) => what.textContent)").await;
        assert_eq!(to_come, json!(["its hard deadline: the backstop ends it, owned or not"]));

        page.click("#story [data-output^='run=']").await;
        says(page, "#output-text", "the process speaks\n").await;
        // Also of a gate that has not ended.
        page.eval("document.querySelector('#story li:last-child').scrollIntoView()").await;
        page.click("#job-back").await;
        assert_eq!(hash(page).await, "#/jobs");
        page.eventually("the list", "return document.querySelector('tr[data-job=\"1\"]').checkVisibility()").await;
    })
    .await;
}

#[tokio::test]
async fn a_job_that_there_is_not_is_said_not_to_be() {
    let service = Service::start(SETTINGS);
    let noise = "/jobs/99 - Failed to load resource: the server responded with a status of 404";
    visit(&service.origin(), &[noise], async |page| {
        page.go(&format!("{}#/job/99", service.origin())).await;
        says(page, "#job-verdict", "no job 99.").await;
    })
    .await;
}

/// Seen to fail with an action that is done at the first click.
#[tokio::test]
async fn a_job_is_ended_and_run_again_from_its_page() {
    let service = Service::start(SETTINGS);
    let noise = "/jobs/1/end - Failed to load resource: the server responded with a status of 401";
    visit(&service.origin(), &[noise], async |page| {
        service.submit("{}");
        page.go(&format!("{}#/job/1", service.origin())).await;
        page.eventually("the gate", "return document.querySelector('.bars .gate[data-result=runs]')").await;
        page.click("#job-actions [value=end]").await;
        says(page, "#job-said", "Run 1 is displaced and commits nothing.").await;
        says(page, "#job-actions [value=end]", "Really: end it").await;
        assert_eq!(service.get("/jobs/1")["state"], "running", "not yet");
        // Without a token it is not done, and the field is there.
        page.click("#job-actions [value=end]").await;
        says(page, "#job-said", "Refused: see the token.").await;
        assert_eq!(page.eval("return document.activeElement.id").await, "token");
        page.fill("#token", TOKEN).await;
        page.fill("#by", "ann").await;
        page.click("#job-actions [value=end]").await;
        page.click("#job-actions [value=end]").await;
        says(page, "#job-said", "Ended as reaped.").await;
        says(page, "#job-state", "reaped").await;
        page.eventually(
            "who did it",
            "return [...document.querySelectorAll('#story li')].some((item) => item.querySelector('.who').textContent === 'ann'
                 && item.querySelector('.what').textContent.startsWith(\"ends it as 'reaped', displacing run 1\"))",
        )
        .await;
        page.click("#job-actions [value=requeue]").await;
        says(page, "#job-said", "Submitted again as job 2.").await;
        assert_eq!(service.get("/jobs/2")["kind"], "default");
    })
    .await;
}

#[tokio::test]
async fn a_mark_is_cleared_from_the_page_of_its_job() {
    let service = Service::start(&SETTINGS.replace("finalize_grace = 0.5", "finalize_grace = 30.0"));
    visit(&service.origin(), &[], async |page| {
        service.submit("{}");
        page.go(&format!("{}#/job/1", service.origin())).await;
        page.eventually("the gate", "return document.querySelector('.bars .gate[data-result=runs]')").await;
        page.fill("#token", TOKEN).await;
        let generation = &service.get("/jobs/1")["running"]["owner"]["generation"];
        page.click("#job-actions [value=clear]").await;
        page.eventually(
            "the warning",
            "return document.querySelector('#job-said').textContent.includes('redriven while its run may be at work')",
        )
        .await;
        page.click("#job-actions [value=clear]").await;
        says(page, "#job-said", &format!("The mark of generation {generation} is cleared.")).await;
        assert_eq!(service.get("/jobs/1")["running"]["owner"], Value::Null);
        page.eventually("no such action any more", "return !document.querySelector('#job-actions [value=clear]')")
            .await;
    })
    .await;
}

/// Seen to fail with a filter that is kept beside the URL.
#[tokio::test]
async fn jobs_are_found_by_search_and_filter_and_the_url_has_them() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        service.submit(r#"{"count":2}"#);
        service.submit(r#"{"kind":"slow","count":3}"#);
        page.eventually("two at the gate", "return document.querySelectorAll('tr[data-stage=test].late').length === 2").await;
        lists(page, &[1, 2, 3, 4, 5]).await;

        page.eval("document.activeElement.blur()").await;
        page.r#type("/slow").await;
        assert_eq!(page.eval("return document.activeElement.id").await, "search");
        lists(page, &[3, 4, 5]).await;
        assert_eq!(hash(page).await, "#/jobs?q=slow");
        // It is found again by who is sent the address.
        page.go("about:blank").await;
        page.go(&format!("{}#/jobs?q=slow", service.origin())).await;
        lists(page, &[3, 4, 5]).await;
        assert_eq!(page.eval("return document.querySelector('#search').value").await, "slow");
        page.click("#filter-clear").await;
        lists(page, &[1, 2, 3, 4, 5]).await;

        page.click("#filter-past").await;
        lists(page, &[1, 2]).await;
        page.click("#filter-past").await;
        page.eval("const kind = document.querySelector('#filter-kind'); kind.value = 'slow'; kind.dispatchEvent(new Event('change', { bubbles: true }))").await;
        lists(page, &[3, 4, 5]).await;
        assert_eq!(hash(page).await, "#/jobs?kind=slow");
        page.click("#stages [data-stage=test] button").await;
        says(page, "#running-empty", "No running job is like that.").await;
        page.eval("history.back()").await;
        lists(page, &[3, 4, 5]).await;
        page.click("[data-count=owned] a").await;
        lists(page, &[1, 2]).await;
        assert_eq!(page.eval("return document.querySelector('#filter-owner').value").await, "any");
        // An owner by its number is in the URL only.
        let run = service.get("/jobs/2")["run"].clone();
        page.eval(&format!("location.hash = '#/jobs?owner={run}'")).await;
        lists(page, &[2]).await;
        assert_eq!(page.eval("return document.querySelector('#filter-owner').selectedOptions[0].text").await, format!("run {run}"));
        // The same as the server lists.
        for query in ["owner=any", "owner=none", "kind=slow", "q=slow", "past_grace=true", "stage=test", &format!("owner={run}")] {
            page.eval(&format!("location.hash = '#/jobs?{query}'")).await;
            let told = service.get(&format!("/jobs?state=running&{query}"));
            let mut ids: Vec<_> = told["jobs"].as_array().unwrap().iter().map(|job| job["job"].as_u64().unwrap()).collect();
            ids.sort_unstable();
            lists(page, &ids).await;
        }
        assert!(!listed(page).await.is_empty());
    })
    .await;
}

/// Seen to fail with a page that shows running jobs only.
#[tokio::test]
async fn ended_jobs_have_a_list_with_pages() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        service.submit(r#"{"kind":"quick","count":55}"#);
        service.submit(r#"{"kind":"red","count":3}"#);
        says(page, "[data-count=merged] dd", "55").await;
        says(page, "[data-count=rolled_back] dd", "3").await;
        page.click("[data-tab=ended]").await;
        says(page, "#others-shown", "50 of 58").await;
        assert_eq!(listed(page).await, (9..=58).rev().collect::<Vec<_>>());
        page.click("#others-older").await;
        lists(page, &[8, 7, 6, 5, 4, 3, 2, 1]).await;
        page.click("#others-newest").await;
        says(page, "#others-shown", "50 of 58").await;
        page.click("[data-count=rolled_back] a").await;
        lists(page, &[58, 57, 56]).await;
        assert_eq!(page.eval("return document.querySelector('#filter-end').value").await, "rolled_back");
        page.fill("#search", "57").await;
        lists(page, &[57]).await;
        // One that ends meanwhile comes by itself.
        page.eval("location.hash = '#/jobs?state=rolled_back'").await;
        lists(page, &[58, 57, 56]).await;
        service.submit(r#"{"kind":"red"}"#);
        lists(page, &[59, 58, 57, 56]).await;
        page.click("tr[data-other='59'] a.id").await;
        says(page, "#job-state", "rolled back").await;
        page.eventually("the red gate", "return document.querySelector('.bars .gate:not([data-result=green])')").await;
        page.click("#story [data-output^='task=']").await;
        says(page, "#output-text", "it does not compile\n").await;
        page.keep_screenshot("ended").await;
        // Back to the list that one came from.
        page.click("#job-back").await;
        assert_eq!(hash(page).await, "#/jobs?state=rolled_back");
        lists(page, &[59, 58, 57, 56]).await;
        page.click("[data-tab=queued]").await;
        says(page, "#others-empty", "No queued job is here.").await;
    })
    .await;
}

/// Seen to fail with an entry for each deferral, and with a feed without modes.
#[tokio::test]
async fn what_happened_is_one_feed_with_repetitions_folded() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        service.submit(r#"{"count":6}"#);
        says(page, "#happened-list li:has([data-kind=verdict]) .many", "6 jobs").await;
        let text = page.text("#happened-list li:has([data-kind=verdict]) .text").await;
        assert!(text.starts_with("deferred, owned, since "), "{text}");
        page.click("#happened-list li:has([data-kind=verdict]) .many").await;
        let jobs = "return [...document.querySelectorAll('#happened-list li:has([data-kind=verdict]) .jobs a')].map((link) => link.getAttribute('href'))";
        let jobs: Vec<String> = serde_json::from_value(page.eval(jobs).await).unwrap();
        assert_eq!(jobs, (1..=6).map(|job| format!("#/job/{job}")).collect::<Vec<_>>());

        page.fill("#token", TOKEN).await;
        page.fill("#by", "ann").await;
        page.click(".mode[data-mode=defer_all]").await;
        page.click("#apply").await;
        page.eventually(
            "who set the mode, and when",
            "const item = document.querySelector('#happened-list li:has([data-kind=mode])');
             return item.querySelector('.second').textContent === 'by ann' && /^[0-9:]{8}$/.test(item.querySelector('time').textContent)",
        )
        .await;
        service.change("POST", "/jobs/3/end", r#"{"reason":"stuck","by":"bob"}"#);
        page.eventually(
            "what was done",
            "const item = document.querySelector('#happened-list li:has([data-kind=action])');
             return item?.querySelector('a.id').getAttribute('href') === '#/job/3' && item.querySelector('.text').textContent.endsWith(': stuck')",
        )
        .await;
        page.keep_screenshot("feed").await;

        // One kind alone, also by its address.
        page.eval("location.hash = '#/jobs?happened=action'").await;
        page.eventually("only actions", "const kinds = [...document.querySelectorAll('#happened-list .badge')].map((badge) => badge.dataset.kind);
             return kinds.length === 1 && kinds[0] === 'action'").await;
        assert_eq!(page.eval("return document.querySelector('#happened-kind').value").await, "action");
        page.click("[data-count=backstop] a").await;
        says(page, "#happened-empty", "Nothing of this kind so far.").await;
        // What was there before one came is told as well.
        page.go("about:blank").await;
        page.go(&service.origin()).await;
        page.eventually("the past", "return document.querySelectorAll('#happened-list [data-kind=mode]').length === 2").await;
    })
    .await;
}

#[tokio::test]
async fn the_queue_is_paused_and_resumed() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        page.fill("#token", TOKEN).await;
        says(page, "#pause", "Pause the queue").await;
        page.click("#pause").await;
        says(page, "#pause-said", "Paused: no queued job is started.").await;
        says(page, "#pause", "Resume the queue").await;
        says(page, "#warning", "The queue is paused: no queued job is started.").await;
        service.submit(r#"{"kind":"quick"}"#);
        says(page, "[data-count=queued] dd", "1").await;
        page.eval("scrollTo(0, 0)").await;
        page.click("[data-tab=queued]").await;
        lists(page, &[1]).await;
        page.click("#pause").await;
        says(page, "[data-count=merged] dd", "1").await;
        lists(page, &[]).await;
    })
    .await;
}

/// Seen to fail with a line that is drawn from left to right, whatever the time.
#[tokio::test]
async fn the_last_hour_is_shown() {
    let service = Service::start(&SETTINGS.replace("hard_deadline = 40.0", "hard_deadline = 8.0"));
    visit(&service.origin(), &[], async |page| {
        live(page).await;
        service.submit(r#"{"count":4}"#);
        says(page, "[data-trend=deferred] .told", "4 now, 4 at most").await;
        page.eventually("the ends", "return document.querySelector('[data-count=reaped] dd').textContent === '4'").await;
        says(page, "[data-trend=reaps] .told", "4").await;
        page.eventually("an age", "return /^none now, [78][.][0-9]\u{a0}s at most$/.test(document.querySelector('[data-trend=oldest_owner_ms] .told').textContent)").await;
        // Few points, at the right.
        let first = page.eval("return Number(document.querySelector('[data-trend=reaps] path').getAttribute('d').slice(1).split(',')[0])").await;
        assert!(first.as_f64().unwrap() > 290.0, "{first}");
        let label = page.eval("return document.querySelector('[data-trend=reaps] svg').ariaLabel ?? document.querySelector('[data-trend=reaps] svg').getAttribute('aria-label')").await;
        assert_eq!(label, "The last hour, jobs reaped: 4");
    })
    .await;
}

#[tokio::test]
async fn a_phone_shows_jobs_first_and_controls_folded() {
    let service = Service::start(SETTINGS);
    visit(&service.origin(), &[], async |page| {
        page.screen(390, 844, "light").await;
        page.go("about:blank").await;
        page.go(&service.origin()).await;
        live(page).await;
        service.submit(r#"{"count":2}"#);
        page.eventually("both past their grace", "return document.querySelectorAll('tr[data-job].late').length === 2").await;
        let tops = "return ['attention', 'running', 'happened', 'control'].map((id) => document.getElementById(id).getBoundingClientRect().top)";
        let tops: Vec<f64> = serde_json::from_value(page.eval(tops).await).unwrap();
        assert!(tops.is_sorted(), "{tops:?}");
        assert_eq!(page.eval("return document.querySelector('#token').checkVisibility()").await, false);
        page.keep_screenshot("phone").await;
        page.eval("scrollTo(0, 0)").await;
        page.click("#in-force").await;
        assert_eq!(page.eval("return document.querySelector('#token').checkVisibility()").await, true);
        page.eval("location.hash = '#/job/1'").await;
        page.eventually("its line", "return document.querySelector('.bars .gate')").await;
        let beyond = page.eval("const { clientWidth, scrollWidth } = document.documentElement; return scrollWidth - clientWidth").await;
        assert_eq!(beyond, 0);
        page.keep_screenshot("phone-job").await;
    })
    .await;
}
