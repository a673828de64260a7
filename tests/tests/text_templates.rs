//! Chat templates: what Hugging Face's environment offers, and hostile programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use atelico_engine::Error;
use atelico_engine::text::ChatTemplate;
use serde_json::{Map, Value, json};

fn render_with(source: &str, kwargs: &Value, tools: Option<&Value>) -> Result<String, Error> {
    let template = ChatTemplate::from_source(source.to_owned())?;
    let messages = json!([
        {"role": "user", "content": "Hi <b>\"there\"</b>"},
        {"role": "assistant", "content": "Hello é", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.5, "y": [true, null]}}}]},
    ]);
    template.render(&messages, tools, kwargs.as_object().unwrap(), true, Some("<s>"), Some("</s>"))
}

fn render(source: &str) -> Result<String, Error> {
    render_with(source, &json!({}), None)
}

#[test]
fn the_language_is_hugging_faces() {
    let cases = [
        ("{{ bos_token }}{{ eos_token }}{{ pad_token }}", "<s></s>"),
        (
            "{% for m in messages %}\n  {% if loop.first %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}\nend\n",
            "user\nend",
        ),
        ("{{ messages[0].content }}", "Hi <b>\"there\"</b>"),
        ("{{ messages[0]['content'] | tojson }}", r#""Hi <b>\"there\"</b>""#),
        ("{{ messages[1].tool_calls[0].function.arguments | tojson }}", r#"{"x": 1.5, "y": [true, null]}"#),
        ("{{ messages[1].content | tojson(ensure_ascii=true) }}", r#""Hello \u00e9""#),
        ("{{ {'b': 1, 'a': [1]} | tojson(indent=2) }}", "{\n  \"b\": 1,\n  \"a\": [\n    1\n  ]\n}"),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}", r#"{"a":2,"b":1}"#),
        ("{{ messages[::-1][0].role }} {{ messages[1:] | length }}", "assistant 1"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user"),
        (
            "{{ '</think>a</think>b'.split('</think>')[-1].lstrip('b') }}|{{ 'abc'.removeprefix('a') }}|{{ 'a=b=c'.partition('=')[2] }}",
            "|bc|b=c",
        ),
        ("{{ 'a,b,c'.rsplit(',', 1) }}", "['a,b', 'c']"),
        ("{{ none }} {{ true }} {{ 1 / 2 }} {{ [1, 'x'] }}", "None True 0.5 [1, 'x']"),
        (
            "{{ tools is none }} {{ tools is defined }} {{ documents is none }} {{ enable_thinking is defined }}",
            "True True True False",
        ),
        ("{% macro t(x) %}[{{ x }}]{% endmacro %}{{ t('a') ~ 1 }}", "[a]1"),
        ("{% generation %}x{% endgeneration %}{{ add_generation_prompt }}", "xTrue"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ messages[1].get('missing', 'd') }}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "da1"),
        (
            "{{ none is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ [] is iterable }}",
            "False True False True",
        ),
        (
            "{{ 'a' is sequence }} {{ {} is sequence }} {{ messages[1:] is sequence }} {{ none is sequence }}",
            "True True True False",
        ),
        ("{{ strftime_now('%Y') | length }} {{ '{} {:>3}'.format('a', 1) }}", "4 a   1"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source).unwrap_or_else(|error| panic!("{source}: {error}")), expected, "{source}");
    }
}

#[test]
fn variables_and_tools_reach_the_template() {
    let text = render_with("{{ enable_thinking }} {{ level }}", &json!({"enable_thinking": false, "level": "x"}), None);
    assert_eq!(text.unwrap(), "False x");
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(render_with("{{ tools[0].function.name }}", &json!({}), Some(&tools)).unwrap(), "f");
    for name in ["messages", "bos_token", "add_generation_prompt", "tools"] {
        let error = render_with("x", &json!({ name: "y" }), None).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("reserved"), "{error}");
    }
    let error = render("{{ raise_exception('Roles must alternate') }}").unwrap_err();
    assert!(matches!(&error, Error::Template(text) if text.contains("Roles must alternate")), "{error}");
}

#[test]
fn a_folder_offers_its_template_in_the_known_places() {
    let folder = tempfile::tempdir().unwrap();
    let config = |value: Value| std::fs::write(folder.path().join("tokenizer_config.json"), value.to_string()).unwrap();
    let load = || ChatTemplate::from_folder(folder.path());
    let text = |tools: Option<&Value>| {
        load().unwrap().unwrap().render(&json!([]), tools, &Map::new(), false, None, None).unwrap()
    };
    assert!(load().unwrap().is_none());
    config(json!({"chat_template": null}));
    assert!(load().unwrap().is_none());
    config(json!({"chat_template": "one"}));
    assert_eq!(text(None), "one");
    config(
        json!({"chat_template": [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]}),
    );
    assert_eq!(text(None), "plain");
    assert_eq!(text(Some(&json!([]))), "plain");
    assert_eq!(text(Some(&json!([{"name": "f"}]))), "tools");
    std::fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(text(None), "file");

    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    for bad in [
        json!({"chat_template": 5}),
        json!({"chat_template": [{"name": "x", "template": "y"}]}),
        json!({"chat_template": [{"name": "x"}]}),
        json!({"chat_template": "{% if %}"}),
    ] {
        config(bad.clone());
        assert!(matches!(load(), Err(Error::Template(_))), "{bad}");
    }
}

/// Programs that would run for ages, fill the memory or overflow the stack.
fn hostile() -> Vec<(&'static str, String)> {
    let wrap = |body: &str| format!("{{% set ns = namespace(x=[], s='a') %}}{body}");
    vec![
        ("huge range", "{% for i in range(1000000000) %}x{% endfor %}".into()),
        ("nested ranges", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".into()),
        ("self-calling macro", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into()),
        ("mutually calling macros", "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}".into()),
        ("repeated string", "{{ 'a' * 1000000000 }}".into()),
        ("repeated list", "{{ [1] * 1000000000 }}".into()),
        ("doubling string", wrap("{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}")),
        ("doubling with ~", wrap("{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}")),
        ("doubling list to JSON", wrap("{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}")),
        ("doubling list to text", wrap("{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}")),
        ("doubling list compared", "{% set ns = namespace(x=[], y=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}{{ 1 // 0 }}".into()),
        ("doubling list by join", wrap("{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ','.join(ns.x) }}")),
        ("replace that explodes", wrap("{% for i in range(99) %}{% set ns.s = ns.s.replace('a', 'aaaaaaaaaa') %}{% endfor %}")),
        ("join that explodes", "{{ ('x' * 100000).join(range(99999)) }}".into()),
        ("indent that explodes", "{{ ('\\n' * 100000) | indent(100000) }}".into()),
        ("format width", "{{ '%1000000000d' | format(1) }}".into()),
        ("str.format width", "{{ '{:1000000000}'.format(1) }}".into()),
        ("str.format computed width", "{{ '{:{}}'.format(1, 1000000000) }}{{ 1 // 0 }}".into()),
        ("center width", "{{ 'a' | center(1000000000) }}{{ 1 // 0 }}".into()),
        ("long output", "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}".into()),
        ("captured output", wrap("{% for i in range(99999) %}{% set t %}{{ 'x' * 100000 }}{% endset %}{% endfor %}")),
        ("huge power", "{{ 10 ** 1000000000 }}{{ 1 // 0 }}".into()),
        ("sorting", "{% for i in range(99999) %}{% set y = range(99999) | sort(reverse=true) %}{% endfor %}".into()),
        ("batches", "{{ range(99999) | batch(100000000) | list }}{{ 1 // 0 }}".into()),
        ("slices", "{{ [1] | slice(1000000000) | list }}{{ 1 // 0 }}".into()),
        ("splitting", "{% for i in range(99999) %}{% set y = ('a' * 100000).split('a') %}{% endfor %}".into()),
        ("counting", "{% for i in range(99999) %}{% set y = ('a' * 1000000).count('b') %}{% endfor %}".into()),
        ("deep source", format!("{}1{}", "{{ ".to_owned() + &"(".repeat(100_000), ")".repeat(100_000) + " }}")),
        ("deep lists in the source", format!("{{{{ {}{} }}}}", "[".repeat(100_000), "]".repeat(100_000))),
        ("deep blocks", "{% if 1 %}".repeat(50_000)),
        ("long source", "x".repeat(600 << 10)),
        ("include of itself", "{% include 'default' %}".into()),
        ("import of itself", "{% import 'default' as d %}{{ d }}".into()),
        ("inheritance from itself", "{% extends 'default' %}".into()),
        ("recursive loop", "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}".into()),
        ("long message", "{{ raise_exception('x' * 10000000) }}".into()),
        ("invalid date", "{{ strftime_now('%é') }}".into()),
        ("wide date", "{{ strftime_now('%999999999Y') }}{{ 1 // 0 }}".into()),
        ("indent of JSON", wrap("{% for i in range(100) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson(indent=1000000000) }}{{ 1 // 0 }}")),
    ]
}

#[test]
fn hostile_templates_end_within_a_second_in_bounded_memory() {
    for (name, source) in hostile() {
        let before = peak_memory();
        let start = Instant::now();
        let result = render(&source);
        let took = start.elapsed();
        let error = match result {
            Ok(text) => panic!("{name} rendered {} bytes", text.len()),
            Err(error) => error.to_string(),
        };
        assert!(error.len() < 4096, "{name}: an error of {} bytes", error.len());
        let limit = Duration::from_millis(1_500);
        assert!(took < limit, "{name} took {took:?}: {error}");
        let grown = peak_memory().saturating_sub(before);
        assert!(grown < 1 << 30, "{name} took {} MB", grown >> 20);
        println!("{name}: {took:?}, {} MB: {}", grown >> 20, error.get(..150).unwrap_or(&error));
    }
}

#[test]
fn deeply_nested_values_do_not_overflow_the_stack() {
    let dictionary = format!("{}ns.x{}", "{'a':".repeat(10), "}".repeat(10));
    let list = format!("{}ns.x{}", "[".repeat(20), "]".repeat(20));
    let tuple = format!("{}ns.x{}", "(".repeat(10), ",)".repeat(10));
    let tails = [
        "",
        "{{ ns.x }}",
        "{{ ns.x | tojson }}",
        "{{ ns.x == [ns.x] }}",
        "{{ ns.x | string | length }}",
        "{{ {ns.x: 1} }}",
    ];
    for (body, rounds) in
        [(&list, 100), (&list, 180), (&list, 1000), (&dictionary, 170), (&dictionary, 1000), (&tuple, 300)]
    {
        let nest = "{% set ns = namespace(x=[]) %}{% for i in range(ROUNDS) %}{% for j in range(100) %}{% set ns.x = BODY %}{% endfor %}{% endfor %}";
        let nest = nest.replace("ROUNDS", &rounds.to_string()).replace("BODY", body);
        for tail in tails {
            // The outcome depends on the fuel left; to be here afterwards is the test.
            drop(render(&format!("{nest}{tail}")));
        }
    }
}

#[test]
fn endless_work_is_abandoned_and_not_piled_up() {
    // Two values whose parts are shared, so that comparing them visits 2^60 lists for free.
    let source = "{% set ns = namespace(x=[], y=[]) %}{% for i in range(60) %}\
                  {% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}";
    let template = ChatTemplate::from_source(source.to_owned()).unwrap();
    let start = Instant::now();
    for expected in ["longer than", "longer than", "not ended", "not ended"] {
        let error = template.render(&json!([]), None, &Map::new(), false, None, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(4));
    assert_eq!(render("{{ messages[0].role }}").unwrap(), "user", "other templates go on");
}

/// The process's peak resident memory in bytes, where the system tells it.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0) << 10
}
