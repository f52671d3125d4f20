//! Chat templates of the shapes that models come with, and hostile ones.

use hipfire_run::text::{ChatTemplate, Message, TextError};
use std::time::{Duration, Instant};

fn messages(list: &[(&str, &str)]) -> Vec<Message> {
    list.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

fn render(source: &str, list: &[(&str, &str)]) -> Result<String, TextError> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(&messages(list), true)
}

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// System turn first, content trimmed, date given only if there is a clock.
const LLAMA3: &str = r#"{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if tools is not none %}{{ raise_exception("no tools here") }}{%- endif %}

{#- The system message comes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"#;

/// Roles must alternate; the system turn goes into the last user turn.
const MISTRAL: &str = r#"{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}"#;

/// Python's methods, reversed search, macros, loop controls, comparisons of types, as thinking models use them.
const THINKING: &str = r#"{%- macro turn(role, content) -%}
<|{{ role }}|>
{{ content }}<|end|>
{% endmacro -%}
{%- set ns = namespace(last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.last_query = index %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {%- if message.role not in ['user', 'assistant', 'system'] %}{% continue %}{% endif %}
    {{- turn(message.role, content.strip()) }}
{%- endfor %}
{{- '<|assistant|>' ~ ns.last_query ~ (1, 'a') ~ [none, true, 1.5, "it's"] ~ ({'k': 'v'}|tojson) }}"#;

#[test]
fn chatml() {
    let got = render(CHATML, &[("system", "Be brief."), ("user", " Hi\n")]).unwrap();
    assert_eq!(got, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi\n<|im_end|>\n<|im_start|>assistant\n");
    let template = ChatTemplate::new(CHATML, "", "").unwrap();
    assert_eq!(template.render(&messages(&[("user", "x")]), false).unwrap(), "<|im_start|>user\nx<|im_end|>\n");
}

#[test]
fn llama3() {
    let got = render(LLAMA3, &[("system", " You are. "), ("user", "Hi "), ("assistant", "Yo"), ("user", "{{ 1 }}")]).unwrap();
    let turn = |role, text| format!("<|start_header_id|>{role}<|end_header_id|>\n\n{text}");
    let expected = [
        "<s>".to_string(),
        turn("system", "Today Date: 26 Jul 2024\n\nYou are.<|eot_id|>"),
        turn("user", "Hi<|eot_id|>"),
        turn("assistant", "Yo<|eot_id|>"),
        turn("user", "{{ 1 }}<|eot_id|>"),
        turn("assistant", ""),
    ];
    assert_eq!(got, expected.concat());
}

#[test]
fn mistral() {
    let got = render(MISTRAL, &[("system", "S"), ("user", "a"), ("assistant", " b "), ("user", "c")]).unwrap();
    assert_eq!(got, "<s>[INST] a[/INST] b</s>[INST] S\n\nc[/INST]");
    let refused = render(MISTRAL, &[("user", "a"), ("user", "b")]).unwrap_err();
    assert_eq!(refused, TextError::TemplateRefused("roles must alternate user/assistant/user/assistant/...".into()));
}

#[test]
fn thinking() {
    let got =
        render(THINKING, &[("user", " q "), ("assistant", "<think>…</think>\n\nA "), ("tool", "t"), ("user", "<tool>r</tool>")]);
    let turns = "<|user|>\nq<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\n<tool>r</tool><|end|>\n";
    assert_eq!(got.unwrap(), format!("{turns}<|assistant|>0(1, 'a')[None, True, 1.5, \"it's\"]{{\"k\": \"v\"}}"));
}

/// Each expression as Jinja2 3.1 evaluates it (checked with it, like the templates above).
#[test]
fn expressions() {
    for (source, expected) in [
        ("{{ 2 * 3 + 4 }} {{ 'ab' * 2 }} {{ [1] * 2 + [2] }}", "10 abab [1, 1, 2]"),
        ("{{ 7 // 2 }} {{ 7 % 3 }} {{ 1.5 + 1 }} {{ 2 ** 3 }}", "3 1 2.5 8"),
        ("{{ ['b', 'a']|sort|join(', ') }} {{ 'a-b'.split('-')|last|upper }}", "a, b B"),
        ("{{ messages|map(attribute='role')|join('/') }} {{ ['a', 'b']|map('upper')|list }}", "user ['A', 'B']"),
        ("{{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|length }}", "1 1"),
        ("{{ 'aXbXc'.replace('X', '') }} {{ 'abc'|replace('b', '--') }} {{ 'x'.join(['1', '2']) }}", "abc a--c 1x2"),
        ("{{ 'a\nb\n\nc'|indent(2) }}", "a\n  b\n\n  c"),
        ("{{ messages[0].items()|list }} {{ messages[0].get('none', 'd') }}", "[('role', 'user'), ('content', 'hi')] d"),
        ("{{ 'hello'[1:3] }} {{ [1, 2, 3][::-1] }} {{ (1, 2)[0] }} {{ 'abc'[-1] }}", "el [3, 2, 1] 1 c"),
        ("{{ 'a' if x is defined else 'b' }} {{ x or 'c' }} {{ not x }}", "b c True"),
        ("{% set a %}x{{ 1 }}{% endset %}{{ a ~ a }}{% filter upper %}u{% endfilter %}", "x1x1U"),
        ("{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ loop.index }}{{ k }}={{ v }};{% endfor %}", "1a=1;2b=[2];"),
        ("{% for x in [[1, [2]], 3] recursive %}{{ x if x is not iterable else loop(x) }}{% endfor %}", "123"),
        ("{% macro m(a, b='d') %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}{% call m('c') %}!{% endcall %}", "cd!"),
        ("{{ '  a '|trim ~ ' b '.strip() ~ 'xxa'.lstrip('x') ~ 'pre-x'.removeprefix('pre-') }}", "abax"),
        ("{{ bos_token }}{{ eos_token }}{{ tools }}{{ 1 == 1.0 }}{{ 'a' in 'abc' }}{{ 1 < 2 < 3 }}", "<s></s>NoneTrueTrueTrue"),
        ("  {% if true %}\na\n  {% endif %}\nb\n", "a\nb"),
    ] {
        assert_eq!(render(source, &[("user", "hi")]).unwrap_or_else(|e| panic!("{source}: {e}")), expected, "{source}");
    }
}

#[test]
fn errors_say_whose_fault() {
    assert!(matches!(render("{% for x in y %}", &[]), Err(TextError::TemplateSyntax(_))));
    assert!(matches!(render("a\n{{ 1 + }}", &[]), Err(TextError::TemplateSyntax(e)) if e.contains("line 2")));
    assert!(matches!(render("{% include '/etc/passwd' %}", &[]), Err(TextError::TemplateSyntax(_))));
    assert!(matches!(render("a\n{{ nothing.at.all }}", &[]), Err(TextError::TemplateFailed(e)) if e.contains("line 2")));
    assert!(matches!(render("{{ 1 / 0 }}", &[]), Err(TextError::TemplateFailed(_))));
    assert!(matches!(render("{{ open('/etc/passwd') }}", &[]), Err(TextError::TemplateFailed(_))));
    assert!(matches!(render("{{ raise_exception('no') }}", &[]), Err(TextError::TemplateRefused(e)) if e == "no"));
    let endless = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    assert!(matches!(render(endless, &[]), Err(TextError::TemplateLimit(_))));
}

/// Bytes that this process has had in memory at most, from Linux's own count; elsewhere 0.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// Loops, doublings and amplifications by every means that the language has.
#[test]
fn hostile_templates_end() {
    let many = |part: &str, count: usize| part.repeat(count);
    let hostile = [
        "{% for i in range(999999999999) %}{{ i }}{% endfor %}".to_string(),
        "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}x{% endfor %}{% endfor %}{% endfor %}".into(),
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}".into(),
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}".into(),
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = 2 * ns.s %}{% endfor %}".into(),
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s]|join %}{% endfor %}".into(),
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}".into(),
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}{% endfor %}".into(),
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l|length }}".into(),
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}".into(),
        "{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}".into(),
        "{% set ns = namespace(l=[1, 2]) %}{% for i in range(100000) %}{% set ns.l = ns.l[0:] %}{% endfor %}{{ ns.l|length }}".into(),
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".into(),
        "{% set a = namespace() %}{% set b = namespace(x=a) %}{% set a.x = b %}{{ a == b }}{{ {a: 1} }}{{ [a, b]|sort }}".into(),
        format!("{{% set s = 'x' %}}{}", many("{% set s = s + s %}", 60)),
        format!("{{% set l = [1] %}}{}", many("{% set l = [l] %}", 10_000)),
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}".into(),
        "{% macro f(n) %}{{ f(n + n) }}{% endmacro %}{{ f('xx') }}".into(),
        "{{ ('a' * 50000) | replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa') | replace('a', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb') }}".into(),
        "{{ 'a' * 100000000 }}".into(),
        "{{ (('a' * 1000) * 1000) * 1000 }}".into(),
        "{{ ('a' * 1000000)|list|length }}{{ ('a' * 1000000)|list|length }}".into(),
        "{{ ('a ' * 1000000).split()|length }}".into(),
        "{{ [('a' * 1000000)] * 1000 }}".into(),
        "{{ ([('a' * 100000)] * 10000)|map('upper')|list|length }}".into(),
        "{{ 'x'|indent(100000000000) }}".into(),
        "{{ '%1000000000d'|format(1) }}{{ '{:>1000000000}'.format(1) }}".into(),
        "{% set s = 'a' * 4000000 %}{% for i in range(100000) %}{% if 'b' in s %}{% endif %}{% endfor %}".into(),
        "{% set l = ['a' * 1000000] * 100000 %}{{ l|sort|length }}".into(),
        "{{ ('a' * 4000000).strip('b' * 4000000) }}".into(),
        format!("{{% set s %}}{}{{% endset %}}{{% for i in range(100000) %}}{{% set t %}}{}{{% endset %}}{{% endfor %}}", "x", many("y", 10_000)),
        format!("{{{{ 1{} }}}}", many(" + 1", 100_000)),
        format!("{{% if a %}}{}{{% endif %}}", many("{% elif a %}", 20_000)),
        format!("{}{}", many("{% if true %}", 5_000), many("{% endif %}", 5_000)),
        format!("{{{{ {}1{} }}}}", many("(", 5_000), many(")", 5_000)),
        format!("{{{{ a{} }}}}", many("[0]", 100_000)),
        format!("{{{{ a{} }}}}", many("|upper", 900)),
        format!("{{{{ a{} }}}}", many(" if b else c", 900)),
        format!("{{{{ {}1 }}}}", many("not ", 900)),
        format!("{{{{ {}1 }}}}", many("-", 900)),
        "{# ".to_string() + &many("c", 2_000_000) + " #}",
    ];
    for source in hostile {
        let shown: String = source.chars().take(100).collect();
        let start = Instant::now();
        let outcome = render(&source, &[("user", "hi")]);
        assert!(start.elapsed() < Duration::from_secs(10), "{shown} took {:?}", start.elapsed());
        println!("{:>9.3?}  {:>4} MiB  {shown}\n           {:.100?}", start.elapsed(), peak_memory() >> 20, outcome);
        if let Ok(text) = &outcome {
            assert!(text.len() < 32 << 20);
        }
    }
    assert!(peak_memory() < 256 << 20, "{} bytes", peak_memory());
}

/// A conversation that fills a long context costs milliseconds and isn't refused.
#[test]
fn long_conversations_pass() {
    let text = "word ".repeat(1000);
    let list: Vec<Message> = (0..400).map(|i| Message::new(["user", "assistant"][i % 2], text.as_str())).collect();
    for source in [CHATML, LLAMA3, MISTRAL, THINKING] {
        let start = Instant::now();
        let rendered = ChatTemplate::new(source, "<s>", "</s>").unwrap().render(&list, true).unwrap();
        assert!(rendered.len() > 1_900_000);
        println!("{:?}", start.elapsed());
    }
}
