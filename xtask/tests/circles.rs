//! The check for circles of files sees every way in which one file names what another one defines.

use std::{fs, path::Path};

use tempfile::TempDir;
use xtask::circles::{Circle, Looked, check, look};

/// A crate of these files, each a path below `src` and its text.
fn crate_of(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join("src").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn looked(files: &[(&str, &str)]) -> Looked {
    let folder = crate_of(files);
    let looked = look(&folder.path().join("src/lib.rs")).unwrap();
    assert_eq!(looked.lost, Vec::<String>::new());
    looked
}

/// The arrows as `a.rs -> b.rs: Name, Other`, paths below `src`.
fn arrows(files: &[(&str, &str)]) -> Vec<String> {
    let short = |path: &Path| {
        let path = path.to_str().unwrap();
        path.rsplit_once("/src/").unwrap().1.to_owned()
    };
    let arrows = looked(files).arrows.into_iter().map(|arrow| {
        let names: Vec<_> = arrow.names.into_keys().collect();
        format!("{} -> {}: {}", short(&arrow.from), short(&arrow.to), names.join(", "))
    });
    let mut arrows: Vec<_> = arrows.collect();
    arrows.sort();
    arrows
}

/// The files of each circle, below `src`.
fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let names = |circle: Circle| {
        let names = circle.files.iter().map(|path| path.to_str().unwrap().rsplit_once("/src/").unwrap().1.to_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    looked(files).circles.into_iter().map(names).collect()
}

/// `a.rs`, with this text, names exactly this of `b.rs`, which defines one of each kind; `b/c.rs` is a child of it.
#[track_caller]
fn names(text: &str, expected: &str) {
    let b = "pub mod c;\npub struct Type;\nimpl Type { pub const ONE: u8 = 1; pub fn new() -> Self { Self } }\n\
             pub enum Enum { One, Two }\npub trait Trait { fn go(&self) {} }\npub fn free() {}\npub const BOUND: u8 = 1;\n\
             pub static WORD: u8 = 1;\npub type Alias = u8;\n";
    let files = [("lib.rs", "mod a;\nmod b;\n"), ("a.rs", text), ("b.rs", b), ("b/c.rs", "pub struct Deep;\n")];
    let expected: Vec<String> = expected.split("; ").filter(|one| !one.is_empty()).map(str::to_owned).collect();
    assert_eq!(arrows(&files), expected, "{text}");
}

#[test]
fn imports_name_what_they_import() {
    names("use crate::b::Type;\n", "a.rs -> b.rs: Type");
    names("use super::b::free;\n", "a.rs -> b.rs: free");
    names("use crate::b::{BOUND, Enum::One, c::Deep};\n", "a.rs -> b.rs: BOUND, Enum; a.rs -> b/c.rs: Deep");
    names("use crate::{b::{self, Trait as _}};\nfn f(_: b::Alias) {}\n", "a.rs -> b.rs: Alias, Trait");
    names("use crate::b::Type as Other;\nfn f(_: Other) {}\n", "a.rs -> b.rs: Type");
    names("fn f() { use crate::b::WORD; }\n", "a.rs -> b.rs: WORD");
}

#[test]
fn a_module_alone_is_no_name_of_what_it_defines() {
    names("use crate::b;\nuse super::b as other;\nuse b::c;\n", "");
}

#[test]
fn a_glob_names_what_is_used_through_it_and_all_that_is_handed_on() {
    names("use crate::b::*;\nfn f() -> Type { free(); Type::new() }\n", "a.rs -> b.rs: Type, free");
    names("use crate::b::Enum::*;\nfn f() -> bool { matches!(x, One) }\n", "a.rs -> b.rs: Enum");
    names("pub use crate::b::c::*;\n", "a.rs -> b/c.rs: Deep");
}

#[test]
fn names_written_out_in_full_are_seen_wherever_they_stand() {
    names("fn f() { crate::b::free(); }\n", "a.rs -> b.rs: free");
    names("struct S(super::b::Type);\n", "a.rs -> b.rs: Type");
    names("fn f() -> u8 { self::super::b::Type::ONE }\n", "a.rs -> b.rs: Type");
    names("use super::b as other;\nfn f() -> u8 { other::BOUND }\n", "a.rs -> b.rs: BOUND");
    names("use super::b;\nfn f() { match x { b::Enum::One => {} b::Enum::Two => {} } }\n", "a.rs -> b.rs: Enum");
    names("struct S;\nimpl crate::b::Trait for S {}\n", "a.rs -> b.rs: Trait");
    names("impl crate::b::Type { fn more() { Self::new(); } }\n", "a.rs -> b.rs: Type");
    names(
        "fn f<T: crate::b::Trait>(t: Box<dyn Fn(crate::b::c::Deep)>) {}\n",
        "a.rs -> b.rs: Trait; a.rs -> b/c.rs: Deep",
    );
    names("fn f() { <crate::b::Type as crate::b::Trait>::go(); }\n", "a.rs -> b.rs: Trait, Type");
}

#[test]
fn names_in_macros_and_attributes_are_seen() {
    names("fn f() { println!(\"{}\", crate::b::BOUND); }\n", "a.rs -> b.rs: BOUND");
    names(
        "use super::b;\nfn f() { assert!(x.y::<b::Type>(), \"{}\", b::c::Deep { z: 1 }); }\n",
        "a.rs -> b.rs: Type; a.rs -> b/c.rs: Deep",
    );
    names(
        "#[derive(Serialize)]\nstruct S { #[serde(with = \"crate::b::c\", default = \"crate::b::free\")] x: u8 }\n",
        "a.rs -> b.rs: free",
    );
    names("#[command(about = crate::b::BOUND)]\nstruct S;\n", "a.rs -> b.rs: BOUND");
    names("macro_rules! m { () => { $crate::b::free() } }\n", "a.rs -> b.rs: free");
}

#[test]
fn what_is_outside_or_only_looks_alike_is_no_name() {
    names(
        "use std::fmt::*;\nuse other::b::Type;\nuse ::b::free;\nfn f(x: S) { x.free(); S { free: 1 }; m!(x.free, free = 1) }\n",
        "",
    );
    names("/// [`crate::b::Type`]\nfn f() { let s = \"crate::b::Type\"; } // crate::b::Type\n", "");
}

#[test]
fn re_exports_lead_to_the_file_that_defines() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\npub use b::Thing;\npub use b::c::*;\n"),
        ("a.rs", "use crate::{Thing, Deep};\n"),
        ("b.rs", "pub mod c;\npub use c::Made as Thing;\n"),
        ("b/c.rs", "pub struct Made;\npub struct Deep;\n"),
    ];
    let expected = ["a.rs -> b/c.rs: Deep, Made", "b.rs -> b/c.rs: Made", "lib.rs -> b/c.rs: Deep, Made"];
    assert_eq!(arrows(&files), expected);
}

#[test]
fn macros_are_where_they_are_written() {
    let files = [
        ("lib.rs", "#[macro_use]\nmod m;\nmod a;\nmod b;\n"),
        (
            "m.rs",
            "macro_rules! lifted { () => {} }\n#[macro_export]\nmacro_rules! exported { () => {} }\npub(crate) use lifted as named;\n",
        ),
        ("a.rs", "fn f() { lifted!(); crate::exported!(); }\n"),
        ("b.rs", "use crate::m::named;\nnamed!();\nfn lifted() {}\n"),
    ];
    assert_eq!(arrows(&files), ["a.rs -> m.rs: exported, lifted", "b.rs -> m.rs: lifted"]);
}

#[test]
fn what_a_macro_makes_is_where_it_is_invoked() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a.rs", "use crate::b::{Made, Hidden};\n"),
        ("b.rs", "other::table! { pub enum Made { One } }\nmacro_rules! m { () => { struct Hidden; } }\nm!();\n"),
    ];
    assert_eq!(arrows(&files), ["a.rs -> b.rs: Hidden, Made"]);
}

#[test]
fn modules_are_found_in_each_place_where_they_may_lie() {
    let files = [
        ("lib.rs", "mod deep;\nmod flat;\n#[path = \"else/where.rs\"]\nmod moved;\nmod inline { pub mod child; }\n"),
        ("deep/mod.rs", "mod below;\nuse super::{flat::F, moved::M, inline::child::C};\n"),
        ("deep/below.rs", "use super::super::flat::leaf::L;\n"),
        ("flat.rs", "pub mod leaf;\npub struct F;\n"),
        ("flat/leaf.rs", "pub struct L;\n"),
        ("else/where.rs", "pub struct M;\n"),
        ("inline/child.rs", "pub struct C;\n"),
    ];
    let expected = [
        "deep/below.rs -> flat/leaf.rs: L",
        "deep/mod.rs -> else/where.rs: M",
        "deep/mod.rs -> flat.rs: F",
        "deep/mod.rs -> inline/child.rs: C",
    ];
    assert_eq!(arrows(&files), expected);
}

#[test]
fn a_circle_is_found_through_a_re_export() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\npub use b::B;\n"),
        ("a.rs", "pub struct A(crate::B);\n"),
        ("b.rs", "pub struct B;\nimpl B { fn f(a: super::a::A) {} }\n"),
    ];
    assert_eq!(circles(&files), [["a.rs", "b.rs"]]);
}

#[test]
fn a_circle_is_found_through_three_files_and_names_written_out() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;\n"),
        ("a.rs", "pub fn a() { crate::b::b() }\n"),
        ("b.rs", "pub fn b() { if true { super::c::c() } }\n"),
        ("c.rs", "pub fn c() { vec![crate::a::a()]; }\n"),
        ("d.rs", "pub fn d() { crate::a::a() }\n"),
    ];
    assert_eq!(circles(&files), [["a.rs", "b.rs", "c.rs"]]);
}

#[test]
fn a_parent_that_uses_its_child_and_defines_what_that_uses_is_a_circle() {
    let both = [("lib.rs", "mod a;\nuse a::A;\npub struct Bound;\n"), ("a.rs", "use super::Bound;\npub struct A;\n")];
    assert_eq!(circles(&both), [["a.rs", "lib.rs"]]);
    let declared = [("lib.rs", "pub mod a;\npub struct Bound;\n"), ("a.rs", "use super::Bound;\npub struct A;\n")];
    assert_eq!(circles(&declared), Vec::<Vec<String>>::new());
}

#[test]
fn a_circle_of_tests_alone_is_none() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\n#[cfg(test)]\nmod support;\n"),
        ("a.rs", "use crate::b::B;\n#[cfg(all(test, not(loom)))]\nmod tests { use super::*; }\npub struct A;\n"),
        (
            "b.rs",
            "pub struct B;\n#[cfg(test)]\nuse crate::a::A;\n#[cfg(test)]\nmod tests { use crate::a::A; }\n\
             impl B { #[cfg(test)] fn f(a: crate::a::A) {} }\n#[test]\nfn t() { crate::a::A; }\n",
        ),
        ("support.rs", "use crate::a::A;\n"),
    ];
    assert_eq!(circles(&files), Vec::<Vec<String>>::new());
    assert_eq!(arrows(&files), ["a.rs -> b.rs: B"]);
}

#[test]
fn a_circle_in_any_configuration_but_tests_is_one() {
    for condition in ["loom", "not(test)", "feature = \"x\"", "any(test, feature = \"x\")"] {
        let b = format!("pub struct B;\n#[cfg({condition})]\nuse crate::a::A;\n");
        let files =
            [("lib.rs", "mod a;\nmod b;\n"), ("a.rs", "use crate::b::B;\npub struct A;\n"), ("b.rs", b.as_str())];
        assert_eq!(circles(&files), [["a.rs", "b.rs"]], "{condition}");
    }
}

#[test]
fn a_path_that_leads_nowhere_is_told() {
    let folder = crate_of(&[("lib.rs", "mod a;\nfn f() { crate::a::gone(); }\n"), ("a.rs", "")]);
    let looked = look(&folder.path().join("src/lib.rs")).unwrap();
    assert_eq!(looked.lost.len(), 1);
    assert!(looked.lost[0].ends_with("lib.rs:2: crate::a::gone"), "{:?}", looked.lost);
}

#[test]
fn every_crate_of_a_folder_is_looked_at_and_a_circle_is_told_file_by_file() {
    let folder = crate_of(&[
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a.rs", "use crate::b::B;\npub struct A;\n"),
        ("b.rs", "\nuse crate::a::A;\npub struct B;\n"),
        ("main.rs", "fn main() {}\n"),
        ("bin/other.rs", "fn main() {}\n"),
    ]);
    fs::write(folder.path().join("Cargo.toml"), "[package]\nname = \"x\"\n").unwrap();
    let found = check(folder.path()).unwrap();
    assert_eq!(found.summary, "3 crates, 5 files, 2 arrows between files");
    let expected = "a circle of 2 files in the crate of src/lib.rs:\n  src/a.rs\n    -> src/b.rs: B (line 1)\n  \
                    src/b.rs\n    -> src/a.rs: A (line 2)";
    assert_eq!(found.faults, [expected]);
}
