//! `depends_on`: resolves names to positions and detects cycles.

use std::ops::Range;

use super::decoder::Decoder;
use super::report::{Location, UnlocatedDiagnostic};
use super::service::{Dependency, ServiceDraft};
use super::suggest::nearest;
use crate::model::map::Map;
use crate::model::{Plan, ServiceIndex};

/// The dependencies of each service as positions.
pub(super) fn resolve(
    decoder: &mut Decoder<'_>,
    drafts: &[ServiceDraft],
    names: &Map<String, usize>,
) -> Vec<Box<[ServiceIndex]>> {
    let mut edges: Vec<Vec<Edge>> = Vec::with_capacity(drafts.len());
    for (own, draft) in drafts.iter().enumerate() {
        let mut resolved: Vec<Edge> = Vec::new();
        for Dependency { name, shown, span } in &draft.depends_on {
            // `main`, the command after `--`, comes after all other services.
            let position = names.get(name).map(|position| (*position).min(drafts.len() - 1));
            let (message, hint) = match position {
                Some(position) if position == own => (format!("`{name}` depends on itself"), "remove it".to_owned()),
                Some(position) if resolved.iter().any(|edge| edge.to == position) => {
                    (format!("`{name}` is listed twice"), "remove one of them".to_owned())
                }
                Some(position) if drafts.get(position).is_some_and(|draft| draft.service.runs_on_schedule()) => {
                    let hint = "remove it; what must come first is a oneshot without `schedule`";
                    (format!("`{name}` runs on a schedule, and nothing can wait for it"), hint.to_owned())
                }
                Some(to) => {
                    resolved.push(Edge { to, span: span.clone() });
                    continue;
                }
                None if decoder.has_syntax_errors => continue,
                None => (format!("unknown service `{}`", shown.escape_debug()), suggestion(name, drafts)),
            };
            decoder.errors.push(diagnostic(draft, span, message, hint));
        }
        edges.push(resolved);
    }
    find_cycles(decoder, drafts, &edges);
    let position = |edge: &Edge| ServiceIndex(u32::try_from(edge.to).unwrap_or(u32::MAX));
    edges.iter().map(|edges| edges.iter().map(position).collect()).collect()
}

struct Edge {
    to: usize,
    span: Range<usize>,
}

fn diagnostic(draft: &ServiceDraft, span: &Range<usize>, message: String, hint: String) -> UnlocatedDiagnostic {
    UnlocatedDiagnostic { location: Location { source: draft.source, span: Some(span.clone()) }, message, hint }
}

fn suggestion(name: &str, drafts: &[ServiceDraft]) -> String {
    let names = drafts.iter().map(|draft| &*draft.service.name);
    match nearest(name, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if drafts.len() <= 12 => format!("known services: {}", names.collect::<Vec<_>>().join(", ")),
        None => String::new(),
    }
}

/// Reports each edge that closes a cycle. Searches depth-first, without recursion, because a chain can be as long as the file.
fn find_cycles(decoder: &mut Decoder<'_>, drafts: &[ServiceDraft], edges: &[Vec<Edge>]) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    let mut marks = vec![Mark::New; drafts.len()];
    for root in 0..drafts.len() {
        let mut path: Vec<(usize, usize)> = Vec::new();
        if marks.get(root) == Some(&Mark::New) {
            path.push((root, 0));
        }
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            if let Some(mark) = marks.get_mut(node) {
                *mark = Mark::OnPath;
            }
            let Some(edge) = edges.get(node).and_then(|edges| edges.get(*next)) else {
                if let Some(mark) = marks.get_mut(node) {
                    *mark = Mark::Done;
                }
                path.pop();
                continue;
            };
            *next += 1;
            match marks.get(edge.to) {
                Some(Mark::New) => path.push((edge.to, 0)),
                Some(Mark::OnPath) => report_cycle(decoder, drafts, &path, edge),
                Some(Mark::Done) | None => {}
            }
        }
    }
}

fn report_cycle(decoder: &mut Decoder<'_>, drafts: &[ServiceDraft], path: &[(usize, usize)], edge: &Edge) {
    let start = path.iter().position(|(node, _)| *node == edge.to).unwrap_or(0);
    let mut cycle: Vec<usize> = path.iter().skip(start).map(|(node, _)| *node).collect();
    cycle.push(edge.to);
    let names: Vec<&str> = cycle.iter().filter_map(|node| Some(&*drafts.get(*node)?.service.name)).collect();
    let Some(from) = path.last().and_then(|(node, _)| drafts.get(*node)) else { return };
    let message = format!("dependency cycle: {}", names.join(" → "));
    decoder.errors.push(diagnostic(from, &edge.span, message, "remove one of these dependencies".to_owned()));
}

/// The services in start order: each after its dependencies, otherwise in the order of the file. They stop in the reverse
/// order.
#[must_use]
pub fn start_order(plan: &Plan) -> Vec<ServiceIndex> {
    let mut order = Vec::with_capacity(plan.services.len());
    let mut is_placed = vec![false; plan.services.len()];
    for root in 0..plan.services.len() {
        let mut path = vec![(root, 0_usize)];
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            let dependency = plan.services.get(node).and_then(|service| service.depends_on.get(*next));
            *next += 1;
            match (dependency, is_placed.get_mut(node)) {
                (_, Some(true) | None) => drop(path.pop()),
                (Some(dependency), Some(false)) => path.push((dependency.position(), 0)),
                (None, Some(placed)) => {
                    *placed = true;
                    order.push(ServiceIndex(u32::try_from(node).unwrap_or(u32::MAX)));
                    path.pop();
                }
            }
        }
    }
    order
}
