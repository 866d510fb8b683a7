//! What a service answers, for people: at most 80 columns, and times by the clock on their wall.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// Columns of a terminal.
const COLUMNS: usize = 80;

/// The time of day.
pub fn clock(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// A length of time, as short as can be.
pub fn length(ms: u64) -> String {
    match ms / 1000 {
        0..100 => format!("{}.{}s", ms / 1000, ms / 100 % 10),
        seconds @ 100..6000 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// One job: whose it is, why it is left alone, what comes next, and how it came to that.
pub fn job(told: &Value) -> String {
    let mut lines = Vec::new();
    let now = number(&told["now_ms"]);
    let at = |value: &Value| value.as_u64().map(clock);
    let state = text(&told["state"]).replace('_', " ");
    let running = &told["running"];
    let place = if running.is_object() { format!(" in {}", text(&running["stage"])) } else { String::new() };
    let run = told["run"].as_u64().map_or_else(String::new, |run| format!(", run {run}"));
    lines.push(format!("job {} ({}) is {state}{place}{run}", told["job"], text(&told["kind"])));
    if running.is_object() {
        lines.push(format!("  owner     {}", owner(&running["owner"], now)));
        lines.extend(verdict(running, now));
    }
    for (name, key) in [
        ("submitted", "submitted_at_ms"),
        ("started", "started_at_ms"),
        ("finished", "stamped_at_ms"),
        ("grace", "grace_at_ms"),
        ("deadline", "deadline_at_ms"),
        ("ended", "ended_at_ms"),
    ] {
        let (Some(clock), ms) = (at(&told[key]), number(&told[key])) else { continue };
        let when = if ms > now { format!("in {}", length(ms - now)) } else { format!("{} ago", length(now - ms)) };
        // Once it has ended, limits that were never reached are of no interest.
        if !(matches!(key, "grace_at_ms" | "deadline_at_ms") && told["ended_at_ms"].is_u64()) {
            lines.push(format!("  {name:<10}{clock}, {when}"));
        }
    }
    for run in list(&told["runs"]) {
        lines.push(run_line(run));
        for gate in list(&run["tasks"]) {
            let end = gate["ended_at_ms"].as_u64().unwrap_or(now);
            let took = length(end.saturating_sub(number(&gate["started_at_ms"])));
            let result = gate["result"].as_str().map_or_else(|| "runs".to_owned(), str::to_owned);
            lines.push(format!("    {:<12} {took:>7}  {result} (task {})", text(&gate["gate"]), gate["task"]));
        }
    }
    for effect in list(&told["effects"]) {
        let (what, run) = (text(&effect["effect"]), &effect["run"]);
        lines.push(format!("  {what} by run {run} at {}", clock(number(&effect["at_ms"]))));
    }
    let wrapped = |line: &String| wrap(line, "            ");
    lines.iter().map(wrapped).collect::<Vec<_>>().join("\n")
}

fn run_line(run: &Value) -> String {
    let mut said = vec![format!("  run {}", run["run"])];
    if let Some(at) = run["started_at_ms"].as_u64() {
        said.push(format!("started {}", clock(at)));
    }
    if let Some(code) = run["exit_code"].as_i64() {
        said.push(format!("exit code {code}"));
    }
    if let Some(at) = run["marked_at_ms"].as_u64() {
        said.push(format!("marked {}", clock(at)));
    }
    said.push(match run["outcome"].as_str() {
        Some(outcome) => outcome.replace('_', " "),
        None => format!("in {}", text(&run["stage"])),
    });
    said.join(", ")
}

fn owner(owner: &Value, _now: u64) -> String {
    if owner.is_null() {
        return "nobody".to_owned();
    }
    let who = owner["run_id"].as_u64().map_or_else(|| "a claim".to_owned(), |run| format!("run {run}"));
    let pulse = owner["pulse_age_ms"].as_u64().map_or_else(String::new, |ms| format!(", pulse {} ago", length(ms)));
    let held = length(number(&owner["age_ms"]));
    format!("{who} in {}, generation {}, for {held}{pulse}", text(&owner["stage"]), owner["generation"])
}

/// The verdict of a running job, and what comes next.
fn verdict(running: &Value, _now: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let verdict = &running["verdict"];
    if verdict.is_object() {
        let said = match text(&verdict["what"]).as_str() {
            "defer" => format!("deferred, {}", text(&running["deferred"]["reason"]).replace('_', " ")),
            "dry_run" => format!("dry run: would {}", text(&verdict["would"])),
            other => other.to_owned(),
        };
        lines.push(format!("  verdict   {said}"));
        lines.push(format!("  why       {}", text(&verdict["text"])));
    }
    let next = &running["next"];
    if next.is_object() {
        let when = format!("at {}, in {}", clock(number(&next["at_ms"])), length(number(&next["in_ms"])));
        lines.push(format!("  next      {}: {when}", text(&next["text"])));
    }
    lines
}

/// A list of jobs.
pub fn jobs(told: &Value) -> String {
    let rows = list(&told["jobs"]);
    let mut lines =
        vec![format!("{:>6} {:<10} {:<12} {:<12} {:<9} {}", "job", "kind", "state", "stage", "started", "ended")];
    for row in rows {
        let at = |key: &str| row[key].as_u64().map_or_else(|| "-".to_owned(), clock);
        lines.push(format!(
            "{:>6} {:<10} {:<12} {:<12} {:<9} {}",
            number(&row["job"]),
            cut(&text(&row["kind"]), 10),
            text(&row["state"]).replace('_', " "),
            cut(row["stage"].as_str().unwrap_or("-"), 12),
            at("started_at_ms"),
            at("ended_at_ms"),
        ));
    }
    let more = number(&told["total"]).saturating_sub(rows.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// What happened, the oldest first.
pub fn history(told: &Value) -> String {
    list(&told["events"]).iter().rev().map(event).collect::<Vec<_>>().join("\n")
}

/// One thing that happened.
pub fn event(event: &Value) -> String {
    let job = event["job"].as_u64().map_or_else(String::new, |job| format!("job {job}: "));
    let line = format!("{} {:<9} {job}{}", clock(number(&event["at_ms"])), text(&event["who"]), text(&event["what"]));
    wrap(&line, "                   ")
}

/// The mode in force, who has set it, and until when.
pub fn mode(told: &Value) -> String {
    let mut line = format!("mode {}", text(&told["mode"]));
    let set = &told["override"];
    if set.is_object() {
        line.push_str(&format!(", set by {} at {}", text(&set["by"]), clock(number(&set["since_at_ms"]))));
        if let Some(until) = set["until_at_ms"].as_u64() {
            // A moment ago it was a whole number.
            let left = length(until.saturating_sub(number(&told["now_ms"])).div_ceil(1000) * 1000);
            line.push_str(&format!(", until {} (in {left}), then {}", clock(until), text(&set["then"])));
        }
    }
    wrap(&line, "  ")
}

fn text(value: &Value) -> String {
    // What a service tells may have been told to it by anybody.
    let shown = |text: &str| text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    value.as_str().map(shown).unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The beginning of what is too long.
pub fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    cut.push('~');
    cut
}

/// A line in as many lines as it needs.
fn wrap(line: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    // What a line begins with stays as it is.
    let begin = line.len() - line.trim_start().len();
    lines[0].push_str(&line[..begin]);
    for (at, word) in line[begin..].split(' ').enumerate() {
        let last = lines.len() - 1;
        let length = lines[last].chars().count();
        if at > 0 && length + 1 + word.chars().count() > COLUMNS {
            lines.push(format!("{indent}{word}"));
        } else {
            if at > 0 {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines.join("\n")
}
