//! Operators, filters, functions and methods that a chat template finds. What is missing here isn't there: in particular
//! nothing reads files, the clock or the environment (`strftime_now` is undefined, as templates expect and test for).

use super::budget::Budget;
use super::guard;
use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters, functions};
use minijinja_contrib::pycompat;
use std::sync::Arc;

/// Built-in filters that could make unbounded text from little, and that chat templates don't use.
const REMOVED: [&str; 9] = ["batch", "chain", "e", "escape", "format", "pprint", "slice", "sum", "zip"];

/// Characters to strip: each is compared with each character of the text.
const STRIPPED: usize = 64;

fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// An environment in which everything is paid for from a budget.
pub(super) fn environment<'e>(budget: &Arc<Budget>) -> Environment<'e> {
    let mut env = Environment::new();
    REMOVED.into_iter().for_each(|name| env.remove_filter(name));
    env.remove_global("debug");
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);

    let b = budget.clone();
    env.set_formatter(move |out, _, value| b.show(value, out));
    let b = budget.clone();
    env.add_filter(guard::CHARGE, move |value: Value| b.made(value));
    let b = budget.clone();
    env.add_filter(guard::WEIGH, move |value: Value| b.weigh(&value).map(|()| value));
    let b = budget.clone();
    env.add_filter(guard::STORE, move |value: Value| b.weigh(&value).map(|()| value));
    let b = budget.clone();
    env.add_filter(guard::ADD, move |left: Value, right: Value| add(&b, &left, &right));
    let b = budget.clone();
    env.add_filter(guard::CONCATENATE, move |left: Value, right: Value| text(&b, &[&left, &right]));
    let b = budget.clone();
    env.add_filter(guard::MULTIPLY, move |left: Value, right: Value| multiply(&b, &left, &right));

    let b = budget.clone();
    env.add_filter("string", move |value: Value| text(&b, &[&value]));
    let b = budget.clone();
    env.add_filter("list", move |value: Value| b.list(&[&value]));
    let b = budget.clone();
    env.add_filter("join", move |value: Value, separator: Option<String>, options: Kwargs| {
        let attribute: Option<String> = options.get("attribute")?;
        options.assert_all_used()?;
        join(&b, &value, separator.as_deref().unwrap_or(""), attribute.as_deref())
    });
    let b = budget.clone();
    env.add_filter("replace", move |value: String, old: String, new: String| replace(&b, &value, &old, &new, None));
    let b = budget.clone();
    env.add_filter("split", move |value: Value, separator: Option<Arc<str>>, count: Option<i64>| {
        pieces(&b, &value, separator.as_deref())?;
        filters::split(&value, separator, count)
    });
    let b = budget.clone();
    env.add_filter("lines", move |value: Value| pieces(&b, &value, Some("\n")).and_then(|()| filters::lines(&value)));
    env.add_filter("trim", |value: String, characters: Option<String>| match characters {
        None => Ok(value.trim().to_string()),
        Some(set) if set.len() <= STRIPPED => Ok(value.trim_matches(&set.chars().collect::<Vec<char>>()[..]).to_string()),
        Some(_) => Err(refuse("too many characters to trim")),
    });
    let b = budget.clone();
    env.add_filter("indent", move |value: String, width: Option<usize>, first: Option<bool>, blank: Option<bool>| {
        indent(&b, &value, width.unwrap_or(4), first.unwrap_or(false), blank.unwrap_or(false))
    });
    let b = budget.clone();
    env.add_filter("tojson", move |value: Value, options: Kwargs| {
        let indent: Option<usize> = options.get("indent")?;
        if indent.is_some() {
            return Err(refuse("tojson(indent=…) isn't supported"));
        }
        let mut json = String::new();
        b.json(&value, &mut json).map(|()| json)
    });
    let b = budget.clone();
    env.add_filter("map", move |state: &mut State, value: Value, args: Rest<ValueOrKwargs>| {
        map(&b, state, value, &args.into_values())
    });

    let b = budget.clone();
    env.add_function("raise_exception", move |message: Value| -> Result<Value, Error> {
        let mut reason = String::new();
        b.show(&message, &mut reason)?;
        Err(refuse(b.refused.get_or_init(|| reason).clone()))
    });
    env.add_function("range", functions::range);
    let b = budget.clone();
    env.set_unknown_method_callback(move |state, value, method, args| call_method(&b, state, value, method, args));
    env
}

/// The texts of values, joined.
fn text(budget: &Budget, values: &[&Value]) -> Result<Value, Error> {
    let mut text = String::new();
    values.iter().try_for_each(|value| budget.show(value, &mut text))?;
    Ok(Value::from(text))
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn integer(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

fn numbers(left: &Value, right: &Value) -> Option<(f64, f64)> {
    Some((f64::try_from(left.clone()).ok()?, f64::try_from(right.clone()).ok()?))
}

fn integers(left: &Value, right: &Value) -> Option<(i128, i128)> {
    let whole = left.is_integer() && right.is_integer();
    if whole { Some((i128::try_from(left.clone()).ok()?, i128::try_from(right.clone()).ok()?)) } else { None }
}

fn add(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    if left.as_str().is_some() && right.as_str().is_some() {
        text(budget, &[left, right])
    } else if is_list(left) && is_list(right) {
        Ok(Value::from(budget.list(&[left, right])?))
    } else if let Some((a, b)) = integers(left, right) {
        a.checked_add(b).map(integer).ok_or_else(|| refuse("a sum is too large"))
    } else if let Some((a, b)) = numbers(left, right) {
        Ok(Value::from(a + b))
    } else {
        Err(refuse(format!("{} and {} can't be added", left.kind(), right.kind())))
    }
}

fn multiply(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    let (repeated, count) = if left.is_number() { (right, left) } else { (left, right) };
    if let (Some(text), Some(count)) = (repeated.as_str(), count.as_i64()) {
        let count = usize::try_from(count).unwrap_or(0);
        budget.charge(text.len().saturating_mul(count))?;
        Ok(Value::from(text.repeat(count)))
    } else if let (true, Some(count)) = (is_list(repeated), count.as_i64()) {
        let items = budget.list(&[repeated])?;
        let count = usize::try_from(count).unwrap_or(0);
        budget.charge_elements(items.len().saturating_mul(count))?;
        let all = std::iter::repeat_n(&items, count).flatten().cloned();
        Ok(Value::from(all.collect::<Vec<Value>>()))
    } else if let Some((a, b)) = integers(left, right) {
        a.checked_mul(b).map(integer).ok_or_else(|| refuse("a product is too large"))
    } else if let Some((a, b)) = numbers(left, right) {
        Ok(Value::from(a * b))
    } else {
        Err(refuse(format!("{} and {} can't be multiplied", left.kind(), right.kind())))
    }
}

fn join(budget: &Budget, value: &Value, separator: &str, attribute: Option<&str>) -> Result<Value, Error> {
    let mut joined = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            budget.write(separator, &mut joined)?;
        }
        let item = attribute.map_or(Ok(item.clone()), |name| item.get_attr(name))?;
        budget.show(&item, &mut joined)?;
    }
    Ok(Value::from(joined))
}

/// Pays for the pieces that a text falls into.
fn pieces(budget: &Budget, value: &Value, separator: Option<&str>) -> Result<(), Error> {
    let text = value.as_str().unwrap_or_default();
    let count = match separator {
        Some(separator) => text.matches(separator).count(),
        None => text.split_whitespace().count(),
    };
    budget.charge_elements(count + 1)
}

fn replace(budget: &Budget, text: &str, old: &str, new: &str, count: Option<usize>) -> Result<Value, Error> {
    let found = text.matches(old).count().min(count.unwrap_or(usize::MAX));
    budget.charge(found.saturating_mul(new.len()))?;
    Ok(Value::from(text.replacen(old, new, found)))
}

fn indent(budget: &Budget, text: &str, width: usize, first: bool, blank: bool) -> Result<Value, Error> {
    budget.charge(text.lines().count().saturating_mul(width))?;
    let indentation = " ".repeat(if text.is_empty() { 0 } else { width });
    let mut indented = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        if (index > 0 || first) && (blank || !line.is_empty()) {
            indented.push_str(&indentation);
        }
        indented.push_str(line);
    }
    Ok(Value::from(indented))
}

/// `map('filter', …)`, each result paid for, and `map(attribute='name')`.
fn map(budget: &Budget, state: &mut State, value: Value, args: &[Value]) -> Result<Vec<Value>, Error> {
    let name = args.first().and_then(Value::as_str);
    let (attribute, default): (Option<String>, Option<Value>) = match name {
        Some(_) => (None, None),
        None => {
            let (options,): (Kwargs,) = minijinja::value::from_args(args)?;
            (Some(options.get("attribute")?), options.get("default")?)
        }
    };
    let mut mapped = Vec::new();
    for item in value.try_iter()? {
        budget.charge_elements(1)?;
        mapped.push(match (name, &attribute) {
            (Some(name), _) => {
                let mut call = vec![item];
                call.extend(args[1..].iter().cloned());
                let result = state.apply_filter(name, &call)?;
                budget.made(result)?
            }
            (None, Some(attribute)) => {
                let found = item.get_attr(attribute)?;
                if found.is_undefined() { default.clone().unwrap_or(found) } else { found }
            }
            (None, None) => item,
        });
    }
    Ok(mapped)
}

/// Python's methods of strings, lists and dictionaries.
fn call_method(budget: &Budget, state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let texts = || args.iter().filter_map(Value::as_str);
    if let Some(text) = value.as_str() {
        match (method, args) {
            ("format" | "join" | "replace", _) => {}
            ("strip" | "lstrip" | "rstrip", _) if texts().any(|set| set.len() > STRIPPED) => {
                return Err(refuse("too many characters to strip"));
            }
            ("split" | "rsplit", _) => pieces(budget, value, texts().next())?,
            ("splitlines", _) => pieces(budget, value, Some("\n"))?,
            _ => {}
        }
        match (method, args) {
            ("format", _) => return Err(refuse("str.format isn't supported")),
            ("join", [items]) => return join(budget, items, text, None),
            ("replace", [old, new, rest @ ..]) => {
                let (Some(old), Some(new)) = (old.as_str(), new.as_str()) else {
                    return Err(refuse("replace takes strings"));
                };
                let count = rest.first().and_then(Value::as_i64).and_then(|count| usize::try_from(count).ok());
                return replace(budget, text, old, new, count);
            }
            ("removeprefix", [prefix]) => {
                return Ok(Value::from(prefix.as_str().and_then(|prefix| text.strip_prefix(prefix)).unwrap_or(text)));
            }
            ("removesuffix", [suffix]) => {
                return Ok(Value::from(suffix.as_str().and_then(|suffix| text.strip_suffix(suffix)).unwrap_or(text)));
            }
            _ => {}
        }
    }
    pycompat::unknown_method_callback(state, value, method, args)
}
