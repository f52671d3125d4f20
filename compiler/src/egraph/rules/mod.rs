//! The rules, by topic. A rule is a row: name, left side, what it makes.
//!
//! Two kinds. An *algebra* rule rewrites terms to terms; it is an egg pattern on both sides. A *launch* rule forms a launch or
//! extends one by what its result is used for, and unites the launch's results with the classes they compute; the old launch stays,
//! so that extraction can weigh both. All are directional. A left side spans at most four operators, a launch counting as one.

mod attention;
mod finish;
pub(crate) use finish::{finish_of, without_results};
mod gemv;
mod heads;
mod norm;
mod row;
mod vocab;

use super::language::{Attr, EGraph, Formed, Lang, LaunchOp, OutRole, Refused, Ty, Types, operands, results};
use egg::{Applier, Id, Pattern, PatternAst, Rewrite, SearchMatches, Searcher, Subst, Symbol, Var};
use hipc_ir::fused::{Finish, FusedOp, ProgramKind, Role, Row, RowExpr};
use std::sync::Arc;

/// A rule.
pub struct Rule {
    /// Name, unique.
    pub name: &'static str,
    /// What it does, as one line of a report.
    pub what: &'static str,
    /// Whether it joins what would else be several launches. A fusing rule that looks at launches does so when it extends one.
    pub fuses: bool,
    /// Left side.
    pub lhs: Lhs,
    /// Launches that a launch rule looks at beside its pattern.
    pub launches: usize,
    /// The only program in which it is valid; `None` for all.
    pub only: Option<ProgramKind>,
    /// Right side.
    pub rhs: Rhs,
}

/// Left side of a rule.
pub enum Lhs {
    /// Any of these patterns.
    Patterns(&'static [&'static str]),
    /// All mat-vecs of one input, see [`gemv`]; binds `?x` and `?w0`, `?w1`, ….
    SharedInput,
}

/// Right side of a rule.
pub enum Rhs {
    /// A term equal to the left side, where the guard holds.
    Term(&'static str, fn(&EGraph, &Match) -> bool),
    /// Forms launches.
    Launch(fn(&mut Site, &Match)),
}

/// Every rule, in the order in which they are applied.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    [norm::RULES, gemv::RULES, finish::RULES, heads::RULES, attention::RULES, vocab::RULES, row::RULES].into_iter().flatten()
}

/// The rules of a program as egg rewrites, without those named.
pub fn rewrites(kind: ProgramKind, without: &[String]) -> Vec<Rewrite<Lang, Types>> {
    all()
        .filter(|r| r.only.is_none_or(|only| only == kind) && !without.iter().any(|name| name == r.name))
        .map(Rule::rewrite)
        .collect()
}

impl Rule {
    /// The rule for egg.
    pub fn rewrite(&'static self) -> Rewrite<Lang, Types> {
        let patterns = match &self.lhs {
            Lhs::Patterns(texts) => texts.iter().map(|t| pattern(t)).collect(),
            Lhs::SharedInput => Vec::new(),
        };
        let term = match &self.rhs {
            Rhs::Term(text, _) => Some(pattern(text)),
            Rhs::Launch(_) => None,
        };
        let searcher = AnyOf { patterns, shared_input: matches!(self.lhs, Lhs::SharedInput) };
        Rewrite::new(self.name, searcher, Apply { rule: self, term }).expect("the applier names no variables")
    }
}

/// Parses a pattern of the rule table.
pub fn pattern(text: &str) -> Pattern<Lang> {
    text.parse().unwrap_or_else(|e| panic!("pattern `{text}` of the rule table: {e}"))
}

/// Searches several patterns, or the shared inputs.
struct AnyOf {
    patterns: Vec<Pattern<Lang>>,
    shared_input: bool,
}

impl Searcher<Lang, Types> for AnyOf {
    fn search_eclass_with_limit(&self, egraph: &EGraph, class: Id, limit: usize) -> Option<SearchMatches<'_, Lang>> {
        let mut substs = Vec::new();
        for p in &self.patterns {
            substs.extend(p.search_eclass_with_limit(egraph, class, limit).into_iter().flat_map(|m| m.substs));
        }
        if self.shared_input {
            substs.extend(gemv::shared_input(egraph, class));
        }
        substs.truncate(limit);
        (!substs.is_empty()).then_some(SearchMatches { eclass: class, substs, ast: None })
    }

    fn vars(&self) -> Vec<Var> {
        Vec::new()
    }
}

/// Applies a right side.
struct Apply {
    rule: &'static Rule,
    term: Option<Pattern<Lang>>,
}

impl Applier<Lang, Types> for Apply {
    fn apply_one(&self, egraph: &mut EGraph, root: Id, subst: &Subst, _: Option<&PatternAst<Lang>>, name: Symbol) -> Vec<Id> {
        let found = Match { root, subst };
        match &self.rule.rhs {
            Rhs::Term(_, holds) => match &self.term {
                Some(term) if holds(egraph, &found) => term.apply_one(egraph, root, subst, None, name),
                _ => Vec::new(),
            },
            Rhs::Launch(form) => {
                let mut site = Site { egraph, rule: self.rule, root, changed: Vec::new() };
                form(&mut site, &found);
                site.changed
            }
        }
    }
}

/// A match of a left side.
pub struct Match<'a> {
    /// The class matched.
    pub root: Id,
    subst: &'a Subst,
}

impl Match<'_> {
    /// The class bound to a variable, if it is bound.
    pub fn get(&self, var: &str) -> Option<Id> {
        self.subst.get(var.parse::<Var>().ok()?).copied()
    }
}

impl std::ops::Index<&str> for Match<'_> {
    type Output = Id;
    fn index(&self, var: &str) -> &Id {
        let var = var.parse::<Var>().expect("a variable of the rule table");
        &self.subst[var]
    }
}

/// A launch that writes a class.
#[derive(Clone)]
pub struct Writer {
    /// The launch's class.
    pub launch: Id,
    /// Its op.
    pub op: Arc<FusedOp>,
    /// The result that is the class.
    pub role: Role,
    operands: Vec<(Role, Id)>,
}

impl Writer {
    /// The class bound to an operand.
    pub fn operand(&self, role: Role) -> Option<Id> {
        self.operands.iter().find(|(r, _)| *r == role).map(|(_, id)| *id)
    }
}

/// Where a launch rule works.
pub struct Site<'a> {
    /// The e-graph.
    pub egraph: &'a mut EGraph,
    rule: &'static Rule,
    root: Id,
    changed: Vec<Id>,
}

impl Site<'_> {
    /// Type of a class.
    pub fn ty(&self, id: Id) -> Ty {
        self.egraph[id].data
    }

    /// Length of an f32 vector.
    pub fn f32_len(&self, id: Id) -> Option<u32> {
        match self.ty(id) {
            Ty::F32(n) => Some(n),
            _ => None,
        }
    }

    /// The attribute a variable is bound to.
    pub fn attr(&self, id: Id) -> Option<Attr> {
        match self.ty(id) {
            Ty::Attr(attr) => Some(attr),
            _ => None,
        }
    }

    /// Launches that write a class, in the order of their numbers.
    pub fn writers(&self, class: Id) -> Vec<Writer> {
        let mut found: Vec<(Id, Role)> = self.egraph[class]
            .nodes
            .iter()
            .filter_map(|n| match n {
                Lang::Out(role, [launch]) => Some((self.egraph.find(*launch), role.0)),
                _ => None,
            })
            .collect();
        found.sort();
        found.dedup();
        found.into_iter().filter_map(|(launch, role)| self.writer(launch, role)).collect()
    }

    fn writer(&self, launch: Id, role: Role) -> Option<Writer> {
        self.egraph[launch].nodes.iter().find_map(|n| match n {
            Lang::Launch(op, children) => {
                let roles = operands(&op.0).into_iter().map(|p| p.role);
                let operands = roles.zip(children.iter().map(|c| self.egraph.find(*c))).collect();
                Some(Writer { launch, op: op.0.clone(), role, operands })
            }
            _ => None,
        })
    }

    /// Adds a launch. Operands not named are those of `from`; results not named are those of `from`, or new.
    pub fn form(&mut self, op: FusedOp, from: Option<&Writer>, given: &[(Role, Id)], computes: &[(Role, Id)]) {
        let bound = |role: Role| given.iter().find(|(r, _)| *r == role).map(|(_, id)| *id);
        let children: Option<Box<[Id]>> =
            operands(&op).into_iter().map(|p| bound(p.role).or_else(|| from?.operand(p.role))).collect();
        let Some(children) = children else {
            debug_assert!(false, "rule {} leaves an operand unbound", self.rule.name);
            return;
        };
        let roles: Vec<Role> = results(&op).into_iter().map(|p| p.role).collect();
        let launch = self.egraph.add(Lang::Launch(LaunchOp(Arc::new(op)), children));
        for role in roles {
            let out = self.egraph.add(Lang::Out(OutRole(role), [launch]));
            let class = match computes.iter().find(|(r, _)| *r == role) {
                Some((_, class)) => Some(*class),
                None => from.and_then(|w| self.egraph.lookup(Lang::Out(OutRole(role), [w.launch]))),
            };
            if let Some(class) = class
                && self.egraph.union(out, class)
            {
                self.changed.push(class);
            }
        }
        // What extends a mere copy is that copy: a launch of its own.
        let copies = |w: &Writer| matches!(&*w.op, FusedOp::Row(Row { expr: RowExpr::Copy, finish: Finish::RAW, .. }));
        let fusion = self.rule.fuses && from.map_or(self.rule.launches == 0, |w| !copies(w));
        let formed = Formed { launch, rule: self.rule.name, fusion, root: self.root, from: from.map(|w| w.launch) };
        if !self.egraph.analysis.formed.contains(&formed) {
            self.egraph.analysis.formed.push(formed);
        }
    }

    /// Notes a fusion that isn't legal.
    pub fn refuse(&mut self, reason: &'static str) {
        let refused = Refused { rule: self.rule.name, root: self.root, reason };
        if !self.egraph.analysis.refused.contains(&refused) {
            self.egraph.analysis.refused.push(refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egg::{ENodeOrVar, Language};

    #[test]
    fn names_are_unique_and_left_sides_small() {
        let mut names = std::collections::BTreeSet::new();
        for rule in all() {
            assert!(names.insert(rule.name), "{} twice", rule.name);
            let texts = match rule.lhs {
                Lhs::Patterns(texts) => texts,
                Lhs::SharedInput => &["(matvec ?w ?x)"],
            };
            for text in texts {
                let ops = pattern(text).ast.iter().filter(|n| matches!(n, ENodeOrVar::ENode(n) if !n.is_leaf())).count();
                assert!(ops + rule.launches <= 4, "{}: {text} and {} launches", rule.name, rule.launches);
            }
        }
    }
}
