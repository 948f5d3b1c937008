//! Runs many seeds, or one.

use std::time::Duration;

use crate::run::{Failure, Totals, run};
use crate::trace::Keep;

/// The number of seeds in `make test`.
const SEEDS: u64 = 2_000;

#[test]
#[expect(clippy::disallowed_macros, clippy::disallowed_methods, reason = "prints figures; measures real time")]
fn every_rule_holds_after_every_step() {
    if let Some(seed) = number("SEED") {
        let text = run(seed, Keep::All).map_or_else(|failure| describe(&failure), |(_, trace)| trace);
        println!("{text}");
    }
    let count = number("SEEDS").unwrap_or(SEEDS);
    let first = number("SEED").or(number("FIRST")).unwrap_or(0);
    let count = if number("SEED").is_some() { 1 } else { count };
    let begun = std::time::Instant::now();
    let mut total = Totals::default();
    let mut failures = Vec::new();
    for seed in first..first + count {
        match run(seed, Keep::Tail) {
            Ok((totals, _)) => total.add(&totals),
            Err(failure) => failures.push(failure),
        }
        if failures.len() == 20 {
            break;
        }
    }
    let took = begun.elapsed().max(Duration::from_nanos(1));
    println!(
        "{count} seeds: {:.0} simulated hours, {} steps in {took:.1?}: {:.0} steps per second",
        total.simulated.as_secs_f64() / 3_600.0,
        total.steps,
        total.steps as f64 / took.as_secs_f64(),
    );
    for (situation, count) in &total.situations {
        println!("{count:>10} {situation}");
    }
    if let Some(worst) = failures.first() {
        let list: Vec<_> = failures.iter().map(|failure| format!("{}: {}", failure.seed, failure.message)).collect();
        panic!("{}\n{} failed:\n{}", describe(worst), failures.len(), list.join("\n"));
    }
}

/// Each of these must occur in at least one run. Otherwise the runs do not test the rules.
const SITUATIONS: [&str; 79] = [
    "action AbortCheck",
    "action AbortProbe",
    "action AnnounceStop",
    "action CancelConfigLoad",
    "action Exit",
    "action LoadConfig",
    "action MeasureMemory",
    "action ReleaseInstance",
    "action RemoveInstance",
    "action StartCheck",
    "action StartProbe",
    "action WithdrawConfigLoad",
    "backoff → starting",
    "backoff → stopped",
    "backoff → waiting",
    "completed → starting",
    "draining Completed",
    "draining Failed",
    "draining NothingLeft",
    "draining Requested",
    "draining Signal",
    "draining Unhealthy",
    "event BindFailed",
    "event FilesChanged",
    "event MainPidChanged",
    "event StoppingReported",
    "event TimeoutExtended",
    "event WallClock",
    "event WatchdogTriggered",
    "journal ProcessesAbandoned",
    "journal ConfigReloadFailed",
    "journal LeftoverProcessesFound",
    "journal LeftoverProcessesKilled",
    "journal ConfigReloaded",
    "journal ConfigReloadDeferred",
    "journal ReloadFinished",
    "journal InstanceReplaced",
    "journal ReloadRolledBack",
    "journal RunSkipped",
    "journal Healthy",
    "journal HookFailed",
    "journal Scaled",
    "journal Unhealthy",
    "journal ServiceFailed",
    "journal DependencyAwaited",
    "journal StopTimedOut",
    "journal Unkillable",
    "failed → failed",
    "failed → starting",
    "failed → waiting",
    "forced by signal: false",
    "forced by signal: true",
    "hook PostStop",
    "hook PreStart",
    "hook PreStop",
    "kill Group",
    "kill Leftovers",
    "kill Main",
    "pause",
    "ready by Fd",
    "ready by Ipc",
    "ready by Notify",
    "ready by Probe",
    "refusal ConfigLoadFailed",
    "refusal Failed",
    "refusal NotRunning",
    "refusal Oneshot",
    "refusal Superseded",
    "refusal ReloadFailed",
    "refusal Reloading",
    "refusal Several",
    "refusal ShuttingDown",
    "refusal UnknownInstance",
    "starting → completed",
    "starting → stopped",
    "starting → stopping",
    "stopping → backoff",
    "stopping → completed",
    "waiting → failed",
];

#[test]
fn the_seeds_cover_every_situation() {
    let mut total = Totals::default();
    for seed in 0..SEEDS {
        if let Ok((totals, _)) = run(seed, Keep::Tail) {
            total.add(&totals);
        }
    }
    let missing: Vec<_> = SITUATIONS.iter().filter(|situation| !total.situations.contains_key(**situation)).collect();
    assert!(missing.is_empty(), "no seed leads to {missing:?}");
}

/// Every random decision depends only on the seed.
#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let [first, second] = [(), ()].map(|()| match run(seed, Keep::All) {
            Ok((_, trace)) => trace,
            Err(failure) => panic!("{}", describe(&failure)),
        });
        assert!(first == second, "seed {seed} gives two different traces");
    }
}

fn describe(failure: &Failure) -> String {
    let Failure { seed, message, plan, trace } = failure;
    format!(
        "{trace}\n{plan:?}\nseed {seed}: {message}\nreplay: SEED={seed} cargo test --test sim every_rule -- --nocapture"
    )
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
