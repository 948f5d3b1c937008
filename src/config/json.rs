//! The output of `check --json`: the plan, or the errors; and the definition of a service.

use serde_json::{Value, json};

use super::expand::LISTEN_FDS_START;
use super::graph::start_order;
use super::report::{Diagnostic, Report};
use super::show::dependencies;
use crate::model::Plan;
use crate::model::plan::{Process, Service};

/// `{"valid": true, "errors": [], "warnings": […], "plan": {…}}`.
#[must_use]
pub fn plan_json(plan: &Plan, warnings: &[Diagnostic]) -> String {
    let mut json = serde_json::to_value(plan).unwrap_or_default();
    let order = start_order(plan).into_iter().filter_map(|index| plan.services.get(index.position()));
    set(&mut json, "start_order", order.map(|service| &*service.name).collect());
    for (service, json) in plan.services.iter().zip(array(&mut json, "services")) {
        complete(json, plan, service);
    }
    text(&json!({ "valid": true, "errors": [], "warnings": warnings, "plan": json }))
}

/// As a service in [`plan_json`].
#[must_use]
pub fn definition_json(plan: &Plan, service: &Service) -> Value {
    let mut json = serde_json::to_value(service).unwrap_or_default();
    complete(&mut json, plan, service);
    json
}

fn complete(json: &mut Value, plan: &Plan, service: &Service) {
    set(json, "depends_on", dependencies(plan, service).into());
    set(json, "log", log_json(&service.process));
    for (fd, socket) in (LISTEN_FDS_START..).zip(array(json, "listen")) {
        set(socket, "fd", fd.into());
    }
}

/// `{"valid": false, "errors": […], "warnings": […], "plan": null}`.
#[must_use]
pub fn report_json(report: &Report) -> String {
    text(&json!({ "valid": false, "errors": report.errors, "warnings": report.warnings, "plan": null }))
}

fn text(value: &Value) -> String {
    format!("{value}\n")
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(key.to_owned(), value);
    }
}

fn array<'v>(object: &'v mut Value, key: &str) -> impl Iterator<Item = &'v mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

fn log_json(process: &Process) -> Value {
    let mut json = json!({ "stdout": process.stdout, "stderr": process.stderr });
    let files = &process.log_files;
    for (key, path) in files.iter() {
        set(&mut json, key, path.to_string().into());
        set(&mut json, "max_size_bytes", files.max_size.into());
        set(&mut json, "max_files", files.max_files.into());
    }
    json
}
