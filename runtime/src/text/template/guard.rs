//! Rewrites a parsed template so that everything it makes is paid for.
//!
//! minijinja counts instructions, but one `s + s` of a doubling string is one instruction. So the tree is rebuilt with the
//! operators that make strings and lists turned into filters of [`super::builtins`], results of filters, calls and slices
//! sent through [`CHARGE`], operands of comparisons through [`WEIGH`], assigned values through [`STORE`], and raw text into
//! emitted constants, which pass through the formatter. No operator is left that the compiler would evaluate in advance.

use minijinja::machinery::Span;
use minijinja::machinery::ast::{self, BinOpKind, CallArg, Expr, Spanned, Stmt};
use minijinja::value::Value;

/// `a + b`. The names can't be written in a template.
pub(super) const ADD: &str = "$add";
/// `a ~ b`
pub(super) const CONCATENATE: &str = "$concatenate";
/// `a * b`
pub(super) const MULTIPLY: &str = "$multiply";
/// Pays for a value that was made.
pub(super) const CHARGE: &str = "$charge";
/// Pays for the time that looking through a value takes.
pub(super) const WEIGH: &str = "$weigh";
/// Refuses to store what is nested too deep.
pub(super) const STORE: &str = "$store";

/// Statements that reach for other templates.
pub(super) const REFUSED: [&str; 5] = ["block", "extends", "from", "import", "include"];

/// Filters that don't look through their input; templates ask for `messages|length` for each message.
const SHALLOW: [&str; 8] = ["length", "count", "first", "last", "default", "d", "list", "safe"];

fn filter<'a>(name: &'static str, value: Expr<'a>, args: Vec<Expr<'a>>, span: Span) -> Expr<'a> {
    let args = args.into_iter().map(CallArg::Pos).collect();
    Expr::Filter(Spanned::new(ast::Filter { name, expr: Some(value), args }, span))
}

fn weigh(value: Expr<'_>) -> Expr<'_> {
    let span = value.span();
    filter(WEIGH, value, Vec::new(), span)
}

fn store(value: Expr<'_>) -> Expr<'_> {
    let span = value.span();
    filter(STORE, value, Vec::new(), span)
}

/// The guarded form of a template.
pub(super) fn statements<'a>(body: &[Stmt<'a>]) -> Vec<Stmt<'a>> {
    body.iter().map(statement).collect()
}

pub(super) fn statement<'a>(stmt: &Stmt<'a>) -> Stmt<'a> {
    match stmt {
        Stmt::Template(s) => Stmt::Template(Spanned::new(ast::Template { children: statements(&s.children) }, s.span())),
        Stmt::EmitExpr(s) => Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr: expression(&s.expr) }, s.span())),
        Stmt::EmitRaw(s) => {
            let raw = Spanned::new(ast::Const { value: Value::from(s.raw) }, s.span());
            Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr: Expr::Const(raw) }, s.span()))
        }
        Stmt::ForLoop(s) => Stmt::ForLoop(Spanned::new(
            ast::ForLoop {
                target: target(&s.target),
                iter: expression(&s.iter),
                filter_expr: s.filter_expr.as_ref().map(expression),
                recursive: s.recursive,
                body: statements(&s.body),
                else_body: statements(&s.else_body),
            },
            s.span(),
        )),
        Stmt::IfCond(s) => Stmt::IfCond(Spanned::new(
            ast::IfCond { expr: expression(&s.expr), true_body: statements(&s.true_body), false_body: statements(&s.false_body) },
            s.span(),
        )),
        Stmt::WithBlock(s) => Stmt::WithBlock(Spanned::new(
            ast::WithBlock {
                assignments: s.assignments.iter().map(|(to, value)| (target(to), store(expression(value)))).collect(),
                body: statements(&s.body),
            },
            s.span(),
        )),
        Stmt::Set(s) => {
            Stmt::Set(Spanned::new(ast::Set { target: target(&s.target), expr: store(expression(&s.expr)) }, s.span()))
        }
        Stmt::SetBlock(s) => Stmt::SetBlock(Spanned::new(
            ast::SetBlock { target: target(&s.target), filter: s.filter.as_ref().map(expression), body: statements(&s.body) },
            s.span(),
        )),
        Stmt::AutoEscape(s) => Stmt::AutoEscape(Spanned::new(
            ast::AutoEscape { enabled: expression(&s.enabled), body: statements(&s.body) },
            s.span(),
        )),
        Stmt::FilterBlock(s) => Stmt::FilterBlock(Spanned::new(
            ast::FilterBlock { filter: expression(&s.filter), body: statements(&s.body) },
            s.span(),
        )),
        Stmt::Macro(s) => Stmt::Macro(macro_declaration(s)),
        Stmt::CallBlock(s) => Stmt::CallBlock(Spanned::new(
            ast::CallBlock { call: call(&s.call), macro_decl: macro_declaration(&s.macro_decl) },
            s.span(),
        )),
        Stmt::Continue(s) => Stmt::Continue(Spanned::new(ast::Continue, s.span())),
        Stmt::Break(s) => Stmt::Break(Spanned::new(ast::Break, s.span())),
        Stmt::Do(s) => Stmt::Do(Spanned::new(ast::Do { call: call(&s.call) }, s.span())),
        // Refused before, see `REFUSED`: nothing is emitted for them.
        Stmt::Block(_) | Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_) | Stmt::Include(_) => {
            let nothing = Expr::Const(Spanned::new(ast::Const { value: Value::UNDEFINED }, Span::default()));
            Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr: nothing }, Span::default()))
        }
    }
}

fn macro_declaration<'a>(s: &Spanned<ast::Macro<'a>>) -> Spanned<ast::Macro<'a>> {
    let declaration = ast::Macro {
        name: s.name,
        args: s.args.iter().map(target).collect(),
        defaults: s.defaults.iter().map(expression).collect(),
        body: statements(&s.body),
    };
    Spanned::new(declaration, s.span())
}

/// What is assigned to: names, attributes of namespaces, and tuples of them.
fn target<'a>(expr: &Expr<'a>) -> Expr<'a> {
    match expr {
        Expr::List(e) => Expr::List(Spanned::new(ast::List { items: e.items.iter().map(target).collect() }, e.span())),
        Expr::Tuple(e) => Expr::Tuple(Spanned::new(ast::Tuple { items: e.items.iter().map(target).collect() }, e.span())),
        other => expression(other),
    }
}

fn expressions<'a>(list: &[Expr<'a>]) -> Vec<Expr<'a>> {
    list.iter().map(expression).collect()
}

fn expression<'a>(expr: &Expr<'a>) -> Expr<'a> {
    let span = expr.span();
    match expr {
        Expr::Var(e) => Expr::Var(Spanned::new(ast::Var { id: e.id }, span)),
        Expr::Const(e) => Expr::Const(Spanned::new(ast::Const { value: e.value.clone() }, span)),
        Expr::Slice(e) => {
            let part = |part: &Option<Expr<'a>>| part.as_ref().map(expression);
            let slice = ast::Slice { expr: expression(&e.expr), start: part(&e.start), stop: part(&e.stop), step: part(&e.step) };
            filter(CHARGE, Expr::Slice(Spanned::new(slice, span)), Vec::new(), span)
        }
        Expr::UnaryOp(e) => {
            let not = matches!(e.op, ast::UnaryOpKind::Not);
            let op = if not { ast::UnaryOpKind::Not } else { ast::UnaryOpKind::Neg };
            Expr::UnaryOp(Spanned::new(ast::UnaryOp { op, expr: expression(&e.expr) }, span))
        }
        Expr::BinOp(e) => {
            let (left, right) = (expression(&e.left), expression(&e.right));
            match e.op {
                BinOpKind::Add => filter(ADD, left, vec![right], span),
                BinOpKind::Concat => filter(CONCATENATE, left, vec![right], span),
                BinOpKind::Mul => filter(MULTIPLY, left, vec![right], span),
                op @ (BinOpKind::ScAnd | BinOpKind::ScOr) => Expr::BinOp(Spanned::new(ast::BinOp { op, left, right }, span)),
                op => Expr::BinOp(Spanned::new(ast::BinOp { op, left: weigh(left), right: weigh(right) }, span)),
            }
        }
        Expr::Compare(e) => {
            let ops = e.ops.iter().map(|c| ast::CompareOp { op: c.op, expr: weigh(expression(&c.expr)) }).collect();
            Expr::Compare(Spanned::new(ast::Compare { expr: weigh(expression(&e.expr)), ops }, span))
        }
        Expr::IfExpr(e) => Expr::IfExpr(Spanned::new(
            ast::IfExpr {
                test_expr: expression(&e.test_expr),
                true_expr: expression(&e.true_expr),
                false_expr: e.false_expr.as_ref().map(expression),
            },
            span,
        )),
        Expr::Filter(e) => {
            let shallow = SHALLOW.contains(&e.name);
            let input = e.expr.as_ref().map(|input| if shallow { expression(input) } else { weigh(expression(input)) });
            let inner = ast::Filter { name: e.name, expr: input, args: arguments(&e.args, !shallow) };
            filter(CHARGE, Expr::Filter(Spanned::new(inner, span)), Vec::new(), span)
        }
        Expr::Test(e) => {
            // A test with an argument compares; one without must see an undefined value as it is.
            let input = if e.args.is_empty() { expression(&e.expr) } else { weigh(expression(&e.expr)) };
            Expr::Test(Spanned::new(ast::Test { name: e.name, expr: input, args: arguments(&e.args, true) }, span))
        }
        Expr::GetAttr(e) => Expr::GetAttr(Spanned::new(ast::GetAttr { expr: expression(&e.expr), name: e.name }, span)),
        Expr::GetItem(e) => Expr::GetItem(Spanned::new(
            ast::GetItem { expr: expression(&e.expr), subscript_expr: weigh(expression(&e.subscript_expr)) },
            span,
        )),
        Expr::Call(e) => filter(CHARGE, Expr::Call(call(e)), Vec::new(), span),
        Expr::List(e) => Expr::List(Spanned::new(ast::List { items: expressions(&e.items) }, span)),
        Expr::Tuple(e) => Expr::Tuple(Spanned::new(ast::Tuple { items: expressions(&e.items) }, span)),
        Expr::Map(e) => {
            let keys = e.keys.iter().map(|key| weigh(expression(key))).collect();
            Expr::Map(Spanned::new(ast::Map { keys, values: expressions(&e.values) }, span))
        }
    }
}

/// A call of a function, macro or method; a method's own value is weighed as well.
fn call<'a>(e: &Spanned<ast::Call<'a>>) -> Spanned<ast::Call<'a>> {
    let callee = match &e.expr {
        Expr::GetAttr(method) => {
            Expr::GetAttr(Spanned::new(ast::GetAttr { expr: weigh(expression(&method.expr)), name: method.name }, method.span()))
        }
        other => expression(other),
    };
    Spanned::new(ast::Call { expr: callee, args: arguments(&e.args, true) }, e.span())
}

fn arguments<'a>(args: &[CallArg<'a>], weighed: bool) -> Vec<CallArg<'a>> {
    let value = |e: &Expr<'a>| if weighed { weigh(expression(e)) } else { expression(e) };
    let argument = |arg: &CallArg<'a>| match arg {
        CallArg::Pos(e) => CallArg::Pos(value(e)),
        CallArg::Kwarg(name, e) => CallArg::Kwarg(name, value(e)),
        CallArg::PosSplat(e) => CallArg::PosSplat(value(e)),
        CallArg::KwargSplat(e) => CallArg::KwargSplat(value(e)),
    };
    args.iter().map(argument).collect()
}
