//! Model ids: what they name, and that nothing outside the cache's root can be reached by one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use atelico_engine::Error;
use atelico_engine::cache::Cache;

fn write(root: &Path, file: &str, bytes: usize) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, vec![b'x'; bytes]).unwrap();
}

fn problem(cache: &Cache, id: &str) -> String {
    match cache.resolve(id) {
        Err(Error::Model { problem, .. }) => problem,
        other => panic!("{id:?}: {other:?}"),
    }
}

/// A cache of every kind of entry.
fn filled() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "org/hf/config.json", 2);
    write(root, "org/hf/model.safetensors", 100);
    write(root, "org/hf/original/model.gguf", 5);
    write(root, "org/one/model-Q4_K_M.gguf", 7);
    write(root, "org/one/config.json", 2);
    write(root, "org/several/a-1.5B-Q4_0.gguf", 3);
    write(root, "org/several/a-1.5B-Q8_0.gguf", 4);
    write(root, "org/both/config.json", 2);
    write(root, "org/both/model.safetensors.index.json", 2);
    write(root, "org/both/x.gguf", 9);
    write(root, "top.gguf", 11);
    write(root, "clash.gguf", 12);
    write(root, "clash/y.gguf", 13);
    write(root, "org/empty/readme.md", 1);
    write(root, ".hidden/z.gguf", 1);
    let cache = Cache::at(root);
    (folder, cache)
}

#[test]
fn ids_name_folders_and_files() {
    let (folder, cache) = filled();
    let expected = [
        ("org/hf", "org/hf"),
        ("org/one", "org/one/model-Q4_K_M.gguf"),
        ("org/one/model-Q4_K_M", "org/one/model-Q4_K_M.gguf"),
        ("org/one/model-Q4_K_M.gguf", "org/one/model-Q4_K_M.gguf"),
        ("org/several/a-1.5B-Q4_0", "org/several/a-1.5B-Q4_0.gguf"),
        ("org/both", "org/both"),
        ("org/both/x", "org/both/x.gguf"),
        ("top", "top.gguf"),
        ("clash", "clash/y.gguf"),
        ("clash.gguf", "clash.gguf"),
    ];
    for (id, path) in expected {
        assert_eq!(cache.resolve(id).unwrap(), folder.path().join(path), "{id}");
    }
}

#[test]
fn several_ggufs_need_a_choice() {
    let (_folder, cache) = filled();
    let problem = problem(&cache, "org/several");
    assert!(problem.contains("org/several/a-1.5B-Q4_0, org/several/a-1.5B-Q8_0"), "{problem}");
}

#[test]
fn what_is_not_there_is_named() {
    let (folder, cache) = filled();
    assert!(problem(&cache, "org/none").contains(&folder.path().display().to_string()));
    assert!(problem(&cache, "org/empty").contains("neither config.json"));
    assert!(problem(&cache, "org").contains("neither config.json"));
    let absent = Cache::at(folder.path().join("absent"));
    assert!(problem(&absent, "x").contains("is not in the cache"));
    assert!(absent.list().unwrap().is_empty());
}

#[test]
fn list_is_ordered_and_every_id_resolves_to_its_path() {
    let (_folder, cache) = filled();
    let list = cache.list().unwrap();
    let ids: Vec<_> = list.iter().map(|model| model.id.as_str()).collect();
    let expected = [
        "clash",
        "clash.gguf",
        "org/both",
        "org/both/x",
        "org/hf",
        "org/one",
        "org/several/a-1.5B-Q4_0",
        "org/several/a-1.5B-Q8_0",
        "top",
    ];
    assert_eq!(ids, expected);
    for model in &list {
        assert_eq!(cache.resolve(&model.id).unwrap(), model.path);
    }
    let bytes: Vec<_> = list.iter().map(|model| model.bytes).collect();
    assert_eq!(bytes, [13, 12, 13, 9, 102, 7, 3, 4, 11]);
    assert_eq!(list, cache.list().unwrap());
}

#[test]
fn hostile_ids_are_refused() {
    let outer = tempfile::tempdir().unwrap();
    write(outer.path(), "secret/config.json", 2);
    write(outer.path(), "secret/model.safetensors", 2);
    write(outer.path(), "secret.gguf", 2);
    write(outer.path(), "root/ok/model.gguf", 2);
    let cache = Cache::at(outer.path().join("root"));
    assert!(cache.resolve("ok").is_ok());

    let absolute = outer.path().join("secret").display().to_string();
    let long = "a".repeat(4097);
    let long_part = "a".repeat(256);
    let deep = ["a"; 7].join("/");
    let fixed = [
        "",
        "/",
        ".",
        "..",
        "../secret",
        "../secret.gguf",
        "ok/../../secret",
        "ok/..",
        "./ok",
        "ok/.",
        "ok//model",
        "ok/",
        "/ok",
        "//server/share",
        "..\\secret",
        "ok\\..\\..\\secret",
        "\\\\server\\share",
        "C:\\secret",
        "C:secret",
        "c:/secret",
        "ok\0",
        "ok\0/../../secret",
        "ok/model.gguf\0",
        "ok\n",
        "ok\u{1b}[2J",
        "ok\u{7f}",
        "ok/model.gguf:stream",
        "CON",
        "con",
        "aux.txt",
        "ok/NUL",
        "com1",
        "COM9.gguf",
        "lpt1.x",
        "com¹",
        "nul .x",
        "ok.",
        "ok ",
        "ok/model.",
        "ok/*",
        "ok/?",
        "ok|x",
        "ok<x",
        "ok>x",
        "ok\"x",
        "in-memory::ok",
        absolute.as_str(),
        long.as_str(),
        long_part.as_str(),
        deep.as_str(),
    ];
    for id in fixed {
        let problem = problem(&cache, id);
        assert!(!problem.contains("is not in the cache"), "{id:?} is looked up: {problem}");
    }

    // Traversals hidden among harmless parts, in every position and spelling.
    let mut generated = 0;
    for parts in 0..5 {
        for at in 0..=parts {
            for hostile in ["..", "../..", "..\\..", ".. ", "../", "..\0", "./..", "...", "secret/../.."] {
                for tail in ["", "/secret", "/secret.gguf"] {
                    let mut id: Vec<_> = std::iter::repeat_n("ok", parts).collect();
                    id.insert(at, hostile);
                    let id = id.join("/") + tail;
                    assert!(cache.resolve(&id).is_err(), "{id:?}");
                    generated += 1;
                }
            }
        }
    }
    assert!(generated >= 400);

    // Look-alikes of the separators and dots are plain characters.
    for id in [
        "ok\u{2215}..\u{2215}secret",
        "\u{ff0e}\u{ff0e}/secret",
        "\u{2024}\u{2024}",
        "%2e%2e/secret",
        "ok\u{ff3c}x",
        "~",
        "$HOME",
    ] {
        assert!(problem(&cache, id).contains("is not in the cache"), "{id:?}");
    }
}

#[test]
fn error_messages_carry_no_control_characters_and_stay_short() {
    let cache = Cache::at("absent");
    for id in ["a\u{1b}[31m\nb", &"é\u{7}".repeat(3000), &"../".repeat(5000)] {
        let message = cache.resolve(id).unwrap_err().to_string();
        assert!(!message.chars().any(char::is_control), "{message:?}");
        assert!(message.len() < 4000, "{}", message.len());
    }
}

#[cfg(unix)]
#[test]
fn links_that_leave_the_root_are_refused() {
    use std::os::unix::fs::symlink;

    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    write(outer.path(), "secret/config.json", 2);
    write(outer.path(), "secret/model.safetensors", 2);
    write(outer.path(), "secret/x.gguf", 2);
    write(&root, "real/config.json", 2);
    write(&root, "real/model.safetensors", 2);
    symlink(outer.path().join("secret"), root.join("folder")).unwrap();
    symlink(outer.path().join("secret/x.gguf"), root.join("file.gguf")).unwrap();
    symlink("../secret", root.join("relative")).unwrap();
    write(&root, "weights/config.json", 2);
    symlink(outer.path().join("secret/model.safetensors"), root.join("weights/model.safetensors")).unwrap();
    for id in ["folder", "folder/x", "file", "file.gguf", "relative", "relative/x", "weights"] {
        assert!(problem(&cache_at(&root), id).contains("leaves the model cache"), "{id}");
    }

    // Links inside the root are the user's own order.
    symlink("real", root.join("alias")).unwrap();
    symlink("..", root.join("real/loop")).unwrap();
    assert!(cache_at(&root).resolve("alias").is_ok());
    let ids: Vec<_> = cache_at(&root).list().unwrap().into_iter().map(|model| model.id).collect();
    assert!(ids.iter().all(|id| !id.starts_with("folder") && !id.starts_with("relative") && id != "file"), "{ids:?}");
    assert!(ids.len() <= 3, "{ids:?}");
}

#[cfg(unix)]
fn cache_at(root: &Path) -> Cache {
    Cache::at(root)
}
