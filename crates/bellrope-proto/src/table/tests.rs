use proptest::prelude::*;

use super::*;

fn entry(message_type: u16, name: &str) -> TypeEntry {
    TypeEntry { message_type, style: Style::Unary, name: name.to_owned(), schema: SchemaMark::default() }
}

/// A table that takes several pages.
fn many(count: usize) -> Vec<TypeEntry> {
    (0..count).map(|n| entry(n as u16 + 1, &format!("{n:0>120}"))).collect()
}

/// Reads a table of so many entries that begins with `body` and goes on with `pages`.
fn read(body: &[u8], entries: usize, mut pages: &[u8]) -> Result<(Vec<TypeEntry>, Pages), BadTable> {
    let mut types = Vec::new();
    let mut known = Pages::begin(body, false, Some(entries as u32), &mut types)?;
    while !known.is_whole() {
        let (head, rest) = pages.split_first_chunk().ok_or(BadTable("cut off"))?;
        let head = known.head(head)?;
        let (page, rest) = rest.split_at_checked(head.len()).ok_or(BadTable("cut off"))?;
        known.page(head, page, &mut types)?;
        pages = rest;
    }
    assert_eq!(pages, b"", "nothing is left");
    Ok((types, known))
}

#[test]
fn the_largest_table_travels_whole_in_a_body_and_pages() {
    for with_schemas in [false, true] {
        let mut types = many(MAX_TYPES);
        if with_schemas {
            types.iter_mut().for_each(|entry| entry.schema = SchemaMark { codec: 1, hash: entry.message_type.into() });
        }
        let in_body = fitting(&types, with_schemas, MAX_PAGE);
        let body = encode(&types[..in_body], with_schemas);
        assert!(body.len() <= MAX_PAGE && in_body < types.len() / 4);
        let mut pages = &encode_pages(&types, in_body, with_schemas)[..];
        let mut came = Vec::new();
        let mut known = Pages::begin(&body, with_schemas, Some(MAX_TYPES as u32), &mut came).unwrap();
        while !known.is_whole() {
            let (head, rest) = pages.split_first_chunk().unwrap();
            let head = known.head(head).unwrap();
            known.page(head, &rest[..head.len()], &mut came).unwrap();
            pages = &rest[head.len()..];
        }
        assert!(pages.is_empty() && came == types);
    }
}

#[test]
fn pages_that_do_not_add_up_are_told_apart() {
    let types = many(1200);
    let in_body = fitting(&types, false, MAX_PAGE);
    let (body, pages) = (encode(&types[..in_body], false), encode_pages(&types, in_body, false));
    assert_eq!(read(&body, 1200, &pages).unwrap().0, types);
    let with = |at: usize, value: &[u8]| {
        let mut pages = pages.clone();
        pages[at..at + value.len()].copy_from_slice(value);
        read(&body, 1200, &pages).unwrap_err().0
    };
    let first = in_body as u16;
    assert_eq!(with(0, &(first - 1).to_le_bytes()), "page", "overlapping");
    assert_eq!(with(0, &(first + 1).to_le_bytes()), "page", "a hole");
    assert_eq!(with(2, &0_u16.to_le_bytes()), "page", "an empty page");
    assert_eq!(with(2, &u16::MAX.to_le_bytes()), "page", "more entries than announced");
    assert_eq!(with(2, &1_u16.to_le_bytes()), "page", "fewer entries than bytes");
    assert_eq!(with(2, &600_u16.to_le_bytes()), "types", "more entries than bytes");
    assert_eq!(with(4, &0_u32.to_le_bytes()), "page", "no bytes");
    assert_eq!(with(4, &(MAX_PAGE as u32 + 1).to_le_bytes()), "page", "too many bytes");
    assert_eq!(with(PAGE_HEAD_LEN + 3, &[0]), "types", "a name of nothing");
    assert_eq!(with(PAGE_HEAD_LEN + 2, &[REMOVED, 0]), "types", "a page that takes out");
    let of = |entries: usize| read(&body, entries, &pages).unwrap_err().0;
    assert_eq!([of(MAX_TYPES + 1), of(u32::MAX as usize), of(in_body - 1)], ["entries"; 3]);
    assert_eq!(of(1201), "cut off", "one that never comes");
}

#[test]
fn changes_are_followed_and_those_that_do_not_fit_are_told_apart() {
    let types = vec![entry(1, "echo"), entry(2, "shout")];
    let (start, known) = read(&encode(&types, false), 2, b"").unwrap();
    let change = |changes: &[TypeChange], entries| {
        let (mut types, mut known, mut bytes) = (start.clone(), known.clone(), Vec::new());
        changes.iter().for_each(|change| change.encode(&mut bytes, false));
        known
            .change(&bytes, entries, &mut types)
            .map(|()| types.into_iter().map(|entry| entry.name).collect::<Vec<_>>())
    };
    let added = |number, name| TypeChange::Added(entry(number, name));
    assert_eq!(change(&[added(3, "sum"), TypeChange::Removed(1)], 2).unwrap(), ["shout", "sum"]);
    assert_eq!(change(&[TypeChange::Removed(1), added(1, "new")], 2).unwrap(), ["shout", "new"]);
    assert_eq!(change(&[added(3, "sum"), TypeChange::Removed(3)], 2).unwrap(), ["echo", "shout"]);
    let fault = |changes: &[TypeChange], entries| change(changes, entries).unwrap_err().0;
    assert_eq!(fault(&[added(2, "sum")], 3), "added");
    assert_eq!(fault(&[TypeChange::Removed(9)], 1), "removed");
    assert_eq!(fault(&[added(3, "sum")], 4), "entries");
    assert_eq!(fault(&[added(3, "line\nbreak")], 3), "types");
    let crowd: Vec<_> = (10..10 + MAX_TYPES as u16).map(|number| added(number, "x")).collect();
    assert_eq!(fault(&crowd, MAX_TYPES as u64 + 2), "entries");
}

#[test]
fn entries_of_an_unknown_style_count_and_can_be_taken_out() {
    let mut body = encode(&[entry(1, "echo"), entry(2, "new")], false);
    body[4 + 4 + 2] = 77;
    let (mut types, mut known) = read(&body, 2, b"").unwrap();
    assert_eq!(types, [entry(1, "echo")]);
    let mut bytes = Vec::new();
    TypeChange::Removed(2).encode(&mut bytes, false);
    assert_eq!(known.change(&bytes, 1, &mut types), Ok(()));
    assert_eq!(known.change(&bytes, 0, &mut types), Err(BadTable("removed")));
}

proptest! {
    #[test]
    fn hostile_tables_never_panic_and_are_bounded(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        entries: u32,
        with_schemas: bool,
    ) {
        let mut types = Vec::new();
        if let Ok(mut known) = Pages::begin(&bytes, with_schemas, Some(entries % 5000), &mut types) {
            if let Some((head, rest)) = bytes.split_first_chunk() {
                if let Ok(head) = known.head(head) {
                    let _ = known.page(head, rest, &mut types);
                }
            }
            let _ = known.change(&bytes, entries.into(), &mut types);
        }
        prop_assert!(types.len() <= MAX_TYPES);
    }
}
