//! Extraction: the cheapest set of launches that computes what is needed. Exact, over the DAG, deterministic.
//!
//! A launch is paid once however many of its results are read, so costs don't add up over a tree (egg's own `Extractor` doubles a
//! residual chain per use). Instead, classes are put in an order in which every launch's results come before its operands, and a search
//! goes through them once. Its state is what is still needed and which chosen launches have results further on; two ways to the same
//! state are compared at once and the dearer one is dropped (dynamic programming). A layer is nearly a chain, so few states are alive.
//!
//! The states at the end differ in what they ask of the region before, as a set of its forms; the cheapest of each is kept and
//! [`super::link`] chooses among them.
//!
//! Exactness: launches that lie on a cycle (a result needs, over other launches, an operand) are left out and counted; none of the rules
//! makes one from a graph so far seen. Dominated launches are left out. A bound cuts states that can't be worth their price.

use super::cost::CostModel;
use super::language::{EGraph, Lang, Leaf, Ty, operands};
use egg::Id;
use hipc_ir::fused::{FusedOp, Role};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A launch that can be chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Its op.
    pub op: Arc<FusedOp>,
    /// Its class.
    pub launch: Id,
    /// Classes of its operands, see [`operands`].
    pub children: Vec<Id>,
    /// What it writes: role, position of the class, picoseconds if read.
    pub results: Vec<(Role, usize, u64)>,
    /// Positions of operands that must be computed.
    needs: Vec<usize>,
    /// Picoseconds without results.
    pub ps: u64,
}

/// All that can be chosen in a region, with classes by position: results before operands.
#[derive(Clone, Debug, Default)]
pub struct Menu {
    /// Classes by position.
    pub classes: Vec<Id>,
    /// Launches.
    pub choices: Vec<Choice>,
    /// Launches left out because they lie on a cycle.
    pub cyclic: usize,
    /// Launches left out because no skeleton does them on the target, and why.
    pub impossible: Vec<(Id, String)>,
    /// Number of the entering form that is the class, by position.
    enter: Vec<Option<u32>>,
    /// Whether the class is an incoming value as it is, by position.
    imported: Vec<bool>,
    /// Launches that give the class, by position.
    gives: Vec<Vec<usize>>,
    /// The same without superfluous launches.
    offered: Vec<Vec<usize>>,
    /// Lower bounds by the launches that are paid for, see [`Menu::bounds`].
    known: RefCell<HashMap<Vec<usize>, Vec<u64>>>,
    position: HashMap<Id, usize>,
}

/// A launch as it stands in the e-graph.
struct Raw {
    launch: Id,
    op: Arc<FusedOp>,
    children: Vec<Id>,
    outs: Vec<(Role, Id)>,
}

/// A restriction of the search.
#[derive(Clone, Debug)]
pub enum Only {
    /// None.
    Anything,
    /// None of these launches.
    Without(BTreeSet<usize>),
    /// At least one of these launches.
    With(BTreeSet<usize>),
}

/// The cheapest launches for one set of entering forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// Entering forms asked for, as bits.
    pub enter: u64,
    /// Picoseconds.
    pub ps: u64,
    /// Launches with the results that are read.
    pub picks: Vec<(usize, Vec<Role>)>,
}

/// A state of the search: positions still needed, ascending; launches chosen that have results further on; entering forms asked for;
/// whether a launch of [`Only::With`] is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    needed: Vec<usize>,
    active: Vec<usize>,
    enter: u64,
    met: bool,
}

/// How a class was got: by an entering form, or as a result of a launch.
#[derive(Clone, Copy, Debug)]
enum Step {
    Enter,
    Launch(usize, Role),
}

/// States kept per class by the first, greedy run that gives the bound.
const BEAM: usize = 3;

impl Menu {
    /// Collects the launches of an e-graph that can matter for `wanted`. `enter` are the classes of entering forms.
    pub fn new(egraph: &EGraph, cost: &CostModel, wanted: &[Id], enter: &[Option<Id>]) -> Self {
        let mut outs: BTreeMap<Id, Vec<(Role, Id)>> = BTreeMap::new();
        for class in egraph.classes() {
            for node in &class.nodes {
                if let Lang::Out(role, [launch]) = node {
                    outs.entry(egraph.find(*launch)).or_default().push((role.0, class.id));
                }
            }
        }
        let mut raw: Vec<Raw> = Vec::new();
        for (launch, mut outs) in outs {
            let Some((op, children)) = egraph[launch].nodes.iter().find_map(|n| match n {
                Lang::Launch(op, children) => Some((op.0.clone(), children)),
                _ => None,
            }) else {
                continue;
            };
            let children: Vec<Id> = children.iter().map(|c| egraph.find(*c)).collect();
            // A launch doesn't give what it reads.
            outs.retain(|(_, class)| !children.contains(class));
            outs.sort();
            outs.dedup();
            raw.push(Raw { launch, op, children, outs });
        }
        let given = |id: Id| match egraph[id].data {
            Ty::Weight(..) | Ty::Rope(..) | Ty::Attr(_) | Ty::Scalar => true,
            _ => egraph[id].nodes.iter().any(|n| matches!(n, Lang::Leaf(leaf) if !matches!(leaf, Leaf::Import(..)))),
        };
        let mut menu = Menu::default();
        menu.order(&raw, wanted.iter().map(|id| egraph.find(*id)).collect(), &given);
        menu.enter = vec![None; menu.classes.len()];
        menu.gives = vec![Vec::new(); menu.classes.len()];
        for (i, class) in (0..).zip(enter) {
            if let Some(at) = class.and_then(|c| menu.position.get(&egraph.find(c))) {
                menu.enter[*at].get_or_insert(i);
            }
        }
        let imported = |id: &Id| egraph[*id].nodes.iter().any(|n| matches!(n, Lang::Leaf(Leaf::Import(..))));
        menu.imported = menu.classes.iter().map(imported).collect();
        for Raw { launch, op, children, outs } in raw {
            let price = match cost.price(&op) {
                Ok(price) => price,
                Err(e) => {
                    menu.impossible.push((launch, e.to_string()));
                    continue;
                }
            };
            let priced = |role: Role| price.results.iter().find(|(r, _)| *r == role).map_or(0, |(_, ps)| *ps);
            let results: Vec<_> =
                outs.iter().filter_map(|(role, c)| Some((*role, *menu.position.get(c)?, priced(*role)))).collect();
            let mut needs: Vec<usize> = children.iter().filter_map(|c| menu.position.get(c).copied()).collect();
            needs.sort_unstable();
            needs.dedup();
            let all_known = children.iter().all(|c| given(*c) || menu.position.contains_key(c));
            if results.is_empty() || !all_known {
                continue;
            }
            if results.iter().any(|(_, at, _)| needs.first().is_some_and(|n| n <= at)) {
                menu.cyclic += 1;
                continue;
            }
            for (_, at, _) in &results {
                menu.gives[*at].push(menu.choices.len());
            }
            menu.choices.push(Choice { op, launch, children, results, needs, ps: price.launch });
        }
        menu.offered = menu.offered(&Only::Anything);
        menu
    }

    /// Numbers the classes reachable from `wanted` so that results come before operands.
    fn order(&mut self, raw: &[Raw], wanted: Vec<Id>, given: &dyn Fn(Id) -> bool) {
        let mut next: HashMap<Id, Vec<Id>> = HashMap::new();
        for Raw { children, outs, .. } in raw {
            for (_, class) in outs {
                next.entry(*class).or_default().extend(children.iter().copied().filter(|c| !given(*c)));
            }
        }
        next.values_mut().for_each(|v| {
            v.sort();
            v.dedup();
        });
        let mut seen: BTreeSet<Id> = BTreeSet::new();
        let mut finished = Vec::new();
        let nothing = Vec::new();
        for root in wanted.into_iter().filter(|id| !given(*id)) {
            let mut stack = vec![(root, 0)];
            if !seen.insert(root) {
                continue;
            }
            while let Some((class, i)) = stack.last_mut() {
                match next.get(class).unwrap_or(&nothing).get(*i) {
                    Some(child) => {
                        *i += 1;
                        if seen.insert(*child) {
                            stack.push((*child, 0));
                        }
                    }
                    None => {
                        finished.push(*class);
                        stack.pop();
                    }
                }
            }
        }
        finished.reverse();
        self.position = finished.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        self.classes = finished;
    }

    /// A lower bound of what each class still costs, by position, when the launches in `active` are paid for: the dearest chain of launches
    /// below it, down to classes that are `free`. (Adding up the operands of a launch would count what they share more than once.)
    fn bounds(&self, active: &[usize], free: &dyn Fn(usize) -> bool) -> Vec<u64> {
        let mut bound = vec![u64::MAX; self.classes.len()];
        for i in active {
            self.choices[*i].results.iter().for_each(|(_, at, _)| bound[*at] = 0);
        }
        for at in (0..self.classes.len()).rev() {
            if free(at) {
                bound[at] = 0;
            }
            for i in &self.gives[at] {
                let needs = self.choices[*i].needs.iter().map(|n| bound[*n]).max().unwrap_or(0);
                bound[at] = bound[at].min(self.choices[*i].ps.saturating_add(needs));
            }
        }
        bound
    }

    /// Position of a class, if it isn't given.
    pub fn position(&self, class: Id) -> Option<usize> {
        self.position.get(&class).copied()
    }

    /// The cheapest solutions that compute the classes at `wanted`: one for each set of entering forms that can pay.
    pub fn solve(&self, wanted: &[usize], only: &Only) -> Vec<Solution> {
        let offered = match only {
            Only::Anything => self.offered.clone(),
            only => self.offered(only),
        };
        let greedy = self.search(wanted, only, &offered, u64::MAX, BEAM);
        let Some(best) = greedy.iter().map(|s| s.ps).min() else {
            return Vec::new();
        };
        // An entering form can't save the regions before more than it costs to compute it here, which takes at most two launches:
        // one for the forms of the normed vector and one for those of the vector itself.
        let anew = self.bounds(&[], &|at| self.imported[at]);
        let anew = (0..self.classes.len()).filter(|at| self.enter[*at].is_some()).map(|at| anew[at]);
        let slack = 2 * anew.filter(|ps| *ps != u64::MAX).max().unwrap_or(0);
        self.search(wanted, only, &offered, best.saturating_add(slack), usize::MAX)
    }

    /// The launches that the search considers, by class. Launch b makes a superfluous if it gives the same results and perhaps more
    /// from the same operands or fewer, at no higher price.
    fn offered(&self, only: &Only) -> Vec<Vec<usize>> {
        let allowed = |i: &usize| !matches!(only, Only::Without(set) if set.contains(i));
        let candidates: Vec<usize> = (0..self.choices.len()).filter(allowed).collect();
        let covers = |b: &Choice, a: &Choice| {
            b.ps <= a.ps
                && b.needs.iter().all(|n| a.needs.binary_search(n).is_ok())
                && a.results.iter().all(|(_, at, ps)| b.results.iter().any(|(_, other, p)| at == other && p <= ps))
        };
        let superfluous = |i: usize| {
            let a = &self.choices[i];
            !matches!(only, Only::With(_))
                && candidates.iter().any(|j| {
                    let b = &self.choices[*j];
                    *j != i && covers(b, a) && (*j < i || !covers(a, b))
                })
        };
        let mut offered = vec![Vec::new(); self.classes.len()];
        for i in candidates.iter().copied().filter(|i| !superfluous(*i)) {
            for (_, at, _) in &self.choices[i].results {
                if offered[*at].last() != Some(&i) {
                    offered[*at].push(i);
                }
            }
        }
        offered
    }

    fn search(&self, wanted: &[usize], only: &Only, offered: &[Vec<usize>], cut: u64, beam: usize) -> Vec<Solution> {
        let mut needed: Vec<usize> = wanted.to_vec();
        needed.sort_unstable();
        needed.dedup();
        let end = self.classes.len();
        let mut steps: Vec<(usize, Step)> = Vec::new();
        let mut alive: BTreeMap<usize, BTreeMap<State, (u64, usize)>> = BTreeMap::new();
        let first = needed.first().copied().unwrap_or(end);
        let start = State { needed, met: !matches!(only, Only::With(_)), ..State::default() };
        alive.entry(first).or_default().insert(start, (0, usize::MAX));
        let mut done = BTreeMap::new();
        while let Some((at, states)) = alive.pop_first() {
            if at == end {
                done = states;
                break;
            }
            let mut states: Vec<_> = states.into_iter().collect();
            if states.len() > beam {
                states.sort_by_cached_key(|(state, (ps, _))| ps.saturating_add(self.remaining(state)));
                let mut kept = [0, 0];
                states.retain(|(state, _)| {
                    kept[usize::from(state.met)] += 1;
                    kept[usize::from(state.met)] <= beam
                });
            }
            for (state, (ps, last)) in states {
                let mut take = |next: State, ps: u64, step: Step| {
                    if ps.saturating_add(self.remaining(&next)) > cut {
                        return;
                    }
                    let group = alive.entry(next.needed.first().copied().unwrap_or(end)).or_default();
                    let known = group.get(&next).map_or(u64::MAX, |(known, _)| *known);
                    if ps < known {
                        steps.push((last, step));
                        group.insert(next, (ps, steps.len() - 1));
                    }
                };
                let after = self.after(&state, at);
                if let Some(form) = self.enter[at] {
                    let mut next = after.clone();
                    next.enter |= 1 << form;
                    take(next, ps, Step::Enter);
                }
                for i in &offered[at] {
                    let choice = &self.choices[*i];
                    let Some((role, _, result)) = choice.results.iter().find(|(_, class, _)| *class == at) else { continue };
                    let active = state.active.contains(i);
                    let total = ps + result + if active { 0 } else { choice.ps };
                    if total > cut {
                        continue;
                    }
                    let mut next = after.clone();
                    if !active {
                        for need in &choice.needs {
                            if let Err(place) = next.needed.binary_search(need) {
                                next.needed.insert(place, *need);
                            }
                        }
                        if choice.results.iter().any(|(_, class, _)| *class > at) {
                            let place = next.active.partition_point(|a| a < i);
                            next.active.insert(place, *i);
                        }
                    }
                    next.met |= matches!(only, Only::With(set) if set.contains(i));
                    take(next, total, Step::Launch(*i, *role));
                }
            }
        }
        let mut best: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        for (state, (ps, last)) in done {
            if state.met && best.get(&state.enter).is_none_or(|(known, _)| ps < *known) {
                best.insert(state.enter, (ps, last));
            }
        }
        // Asking for fewer forms at no higher price is never worse.
        let better =
            |enter: u64, ps: u64| best.iter().any(|(other, (p, _))| *other != enter && other & enter == *other && *p <= ps);
        let kept = best.iter().filter(|(enter, (ps, _))| !better(**enter, *ps));
        kept.map(|(enter, (ps, last))| Solution { enter: *enter, ps: *ps, picks: picks(&steps, *last) }).collect()
    }

    /// What a state still costs at least.
    fn remaining(&self, state: &State) -> u64 {
        let mut known = self.known.borrow_mut();
        let free: &dyn Fn(usize) -> bool = &|at| self.enter[at].is_some();
        if !known.contains_key(&state.active) {
            known.insert(state.active.clone(), self.bounds(&state.active, free));
        }
        let bound = &known[&state.active];
        state.needed.iter().map(|at| bound[*at]).max().unwrap_or(0)
    }

    /// The state without the class at `at`, and without launches that have nothing more to give.
    fn after(&self, state: &State, at: usize) -> State {
        let gives_more = |i: &usize| self.choices[*i].results.iter().any(|(_, class, _)| *class > at);
        State { needed: state.needed[1..].to_vec(), active: state.active.iter().copied().filter(gives_more).collect(), ..*state }
    }
}

/// Follows the steps back and collects each launch's results that are read.
fn picks(steps: &[(usize, Step)], mut last: usize) -> Vec<(usize, Vec<Role>)> {
    let mut picks: BTreeMap<usize, Vec<Role>> = BTreeMap::new();
    while let Some((before, step)) = steps.get(last) {
        if let Step::Launch(choice, role) = step {
            picks.entry(*choice).or_default().push(*role);
        }
        last = *before;
    }
    picks
        .into_iter()
        .map(|(choice, mut roles)| {
            roles.sort();
            (choice, roles)
        })
        .collect()
}

/// Operands of a choice: what each is for, and its class.
pub fn bound_operands(choice: &Choice) -> impl Iterator<Item = (Role, Id)> + '_ {
    operands(&choice.op).into_iter().map(|p| p.role).zip(choice.children.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipc_ir::fused::Choose;
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// A menu of made-up launches with one to three results each.
    fn random_menu(rng: &mut impl Rng) -> Menu {
        let n = rng.random_range(3..8);
        let mut menu = Menu {
            classes: (0..n).map(Id::from).collect(),
            enter: (0..n).map(|at| (at + 2 >= n || rng.random_bool(0.2)).then_some(at as u32)).collect(),
            imported: (0..n).map(|at| at + 2 >= n).collect(),
            gives: vec![Vec::new(); n],
            ..Menu::default()
        };
        for first in (0..n - 2).flat_map(|at| [at; 3]) {
            let last = rng.random_range(first..(first + 2).min(n - 2));
            let results: Vec<_> = (first..=last).map(|at| (Role::Out(at as u32), at, rng.random_range(0..3))).collect();
            let needs: BTreeSet<usize> = (0..rng.random_range(1..3)).map(|_| rng.random_range(last + 1..n)).collect();
            for (_, at, _) in &results {
                menu.gives[*at].push(menu.choices.len());
            }
            let op = Arc::new(FusedOp::Choose(Choose { n: 1, partials: false, advance: false }));
            let (launch, children) = (Id::from(menu.choices.len()), Vec::new());
            menu.choices.push(Choice {
                op,
                launch,
                children,
                results,
                needs: needs.into_iter().collect(),
                ps: rng.random_range(1..20),
            });
        }
        menu.offered = menu.offered(&Only::Anything);
        menu
    }

    /// Every way to get what is needed: price by set of entering forms, tried one by one.
    fn all_ways(
        menu: &Menu,
        mut needed: BTreeSet<usize>,
        taken: &BTreeSet<usize>,
        enter: u64,
        ps: u64,
        best: &mut BTreeMap<u64, u64>,
    ) {
        let Some(at) = needed.pop_first() else {
            let known = best.entry(enter).or_insert(u64::MAX);
            *known = ps.min(*known);
            return;
        };
        if let Some(form) = menu.enter[at] {
            all_ways(menu, needed.clone(), taken, enter | 1 << form, ps, best);
        }
        for i in &menu.gives[at] {
            let c = &menu.choices[*i];
            let result = c.results.iter().find(|r| r.1 == at).map_or(0, |r| r.2);
            let (mut needed, mut taken) = (needed.clone(), taken.clone());
            let new = if taken.insert(*i) { c.ps } else { 0 };
            needed.extend(&c.needs);
            all_ways(menu, needed, &taken, enter, ps + result + new, best);
        }
    }

    #[test]
    fn finds_what_trying_everything_finds() {
        for seed in 0..300 {
            let menu = random_menu(&mut ChaCha8Rng::seed_from_u64(seed));
            let mut best = BTreeMap::new();
            all_ways(&menu, BTreeSet::from([0, 1]), &BTreeSet::new(), 0, 0, &mut best);
            let found: BTreeMap<u64, u64> = menu.solve(&[0, 1], &Only::Anything).into_iter().map(|s| (s.enter, s.ps)).collect();
            assert_eq!(found.values().min(), best.values().min(), "seed {seed}");
            // The others are the same too, as far as they are kept.
            assert!(found.iter().all(|(enter, ps)| best.get(enter) == Some(ps)), "seed {seed}: {found:?}, {best:?}");
        }
    }
}
