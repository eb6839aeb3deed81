//! N1: key <-> path is a bijection for every legal S3 key.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::types::key::MAX_KEY_BYTES;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// The path of a key as clients would type it, with nothing shadowed.
fn shown(text: &str) -> Vec<String> {
    split(&key(text)).iter().map(|c| c.name(false).to_string()).collect()
}

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).unwrap()
}

/// Texts of the components that `bytes` can stand for.
fn found(bytes: &[u8]) -> Vec<(ComponentKind, String)> {
    name(bytes).candidates().iter().map(|c| (c.kind(), c.text().to_owned())).collect()
}

#[test]
fn ordinary_keys_look_as_they_are() {
    assert_eq!(shown("a/b.txt"), ["a", "b.txt"]);
    assert_eq!(shown("grüße/日本/~x f"), ["grüße", "日本", "~x f"]);
    assert_eq!(shown(""), [""; 0]);
    let longest = "d".repeat(245);
    assert_eq!(shown(&format!("{longest}/{longest}")), [&*longest, &*longest]);
}

#[test]
fn slashes_make_directories() {
    assert_eq!(format!("{:?}", split(&key("a/b"))), r#"[Dir("a"), File("b")]"#);
    assert_eq!(format!("{:?}", split(&key("a/b/"))), r#"[Dir("a"), Dir("b")]"#);
    assert_eq!(format!("{:?}", split(&key("a//b"))), r#"[Dir("a"), Dir(""), File("b")]"#);
    assert_eq!(format!("{:?}", split(&key("/"))), r#"[Dir("")]"#);
}

#[test]
fn what_no_name_can_say_is_escaped() {
    assert_eq!(shown("//"), ["‛0", "‛0"]);
    assert_eq!(shown("./../..."), ["‛.", "‛..", "..."]);
    assert_eq!(shown("a\0b/‛0"), ["a‛@b", "‛‛0"]);
}

#[test]
fn directory_hides_the_file_of_the_same_text() {
    let file = &split(&key("a"))[0];
    assert_eq!(file.name(false), name(b"a"));
    assert_eq!(file.name(true), name("a‛f".as_bytes()));
    assert_eq!(found(b"a"), [(ComponentKind::Dir, "a".into()), (ComponentKind::File, "a".into())]);
    assert_eq!(found("a‛f".as_bytes()), [(ComponentKind::File, "a".into())]);
}

#[test]
fn name_that_is_not_utf8_has_a_key() {
    let latin1 = b"caf\xE9.txt";
    assert_eq!(found(latin1)[1], (ComponentKind::File, "caf‛xE9.txt".into()));
    assert_eq!(split(&key("caf‛xE9.txt"))[0].name(false), name(latin1));
    assert_eq!(split(&key("caf‛xE9.txt"))[0].name(true), name(b"caf\xE9.txt\xE2\x80\x9Bf"));
}

#[test]
fn form_that_would_read_as_a_character_stays_text() {
    // 0xC3 0xA9 together are é: the second form is shown as text, and neither name is anything else
    assert_eq!(split(&key("‛xC3‛xA9"))[0].name(false), name(b"\xC3\xE2\x80\x9B\xE2\x80\x9BxA9"));
    assert_eq!(found("é".as_bytes())[1].1, "é");
    assert_eq!(shown("‛xe9/‛x7F/‛x8"), ["‛‛xe9", "‛‛x7F", "‛‛x8"]);
    assert_eq!(found("‛‛xE9".as_bytes()), []);
}

#[test]
fn ill_formed_escapes_have_no_key() {
    for bad in ["‛", "a‛", "‛1", "‛xE9", "‛f", "‛~", "a‛~", "a‛fb", "‛f‛f", "a‛.", "‛0‛f", "‛...", "‛0‛0", "‛.‛."]
    {
        assert_eq!(found(bad.as_bytes()), [], "{bad}");
    }
    assert_eq!(found(b"\xE2\x80\x9B\xFF"), []);
}

#[test]
fn long_component_is_cut_into_pieces() {
    let long = "x".repeat(600);
    let piece = "x".repeat(246) + "‛~";
    assert_eq!(shown(&long), [&*piece, &*piece, &"x".repeat(108)]);
    assert_eq!(shown(&format!("{long}/y")), [&*piece, &*piece, &"x".repeat(108), "y"]);
    assert_eq!(found(piece.as_bytes()), [(ComponentKind::Chunk, "x".repeat(246))]);
}

#[test]
fn piece_holds_everything_that_begins_with_it_but_the_file() {
    let piece = "x".repeat(246);
    assert_eq!(shown(&piece), [&*piece]);
    assert_eq!(shown(&format!("{piece}/")), [&*format!("{piece}‛~"), "‛0"]);
    assert_eq!(shown(&format!("{piece}/a")), [&*format!("{piece}‛~"), "‛0", "a"]);
    assert_eq!(shown(&format!("{piece}.")), [&*format!("{piece}‛~"), "‛."]);
    assert_eq!(found(piece.as_bytes()), [(ComponentKind::File, piece.clone())]);
    assert_eq!(found((piece + "x").as_bytes()), []);
}

#[test]
fn pieces_are_cut_between_characters() {
    let name = split(&key(&"日".repeat(200)))[0].name(false);
    assert_eq!(name.to_string(), "日".repeat(82) + "‛~");
    let widest = split(&key(&("x".repeat(245) + "‛rest")))[0].name(false);
    assert_eq!(widest.as_bytes().len(), 255);
}

#[test]
fn illegal_names_are_refused() {
    for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
        assert_eq!(Name::new(bad), Err(NameError::Illegal));
    }
    assert_eq!(Name::new(&[b'a'; 256]), Err(NameError::TooLong));
    assert!(Name::new(&[b'a'; 255]).is_ok());
    assert!(Name::new(b"\xFF\x01...").is_ok());
}

#[test]
fn bytes_that_no_component_has_are_refused() {
    let long = [b'x'; 247];
    for bad in [&b""[..], b"a/b", b"a//", b"\xFF", b"a\xFF", b"\xC3", &long] {
        assert_eq!(Component::from_bytes(bad), None, "{bad:?}");
    }
}

#[test]
fn path_that_ends_in_a_piece_is_no_key() {
    let path = split(&key(&"x".repeat(300)));
    assert_eq!(join(&path[..1]), None);
    let twice = [&path[..], &path, &path, &path].concat();
    assert_eq!(join(&twice), None, "longer than a key can be");
}

/// Text over an alphabet in which every special case is near.
fn piece() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        8 => "[./‛x089AFCEf~@\0]",
        4 => "‛x[89A-F][0-9A-F]",
        4 => r"[!-~é日\PC]",
        1 => any::<char>().prop_map(String::from),
        1 => "‛x(C3‛xA9|E2‛x80‛x9B|F0‛x9F‛x98‛x80)",
        2 => (prop_oneof![Just("a"), Just("é"), Just("日"), Just("‛"), Just("\0"), Just("‛xFF")], 30..250usize)
            .prop_map(|(unit, n)| unit.repeat(n)),
    ];
    prop::collection::vec(atom, 0..12).prop_map(|atoms| atoms.concat())
}

/// The longest legal key that `text` begins with.
fn cut_key(text: &str) -> Key {
    key(&text[..text.floor_char_boundary(MAX_KEY_BYTES)])
}

/// Two keys, often with a long common beginning, the second with any ending.
fn two_keys() -> impl Strategy<Value = (Key, Key)> {
    (piece(), 235..255usize, piece(), piece()).prop_map(|(head, pad, a, b)| {
        let head = if head.len() % 2 == 0 { head } else { "y".repeat(pad) };
        (cut_key(&(head.clone() + &a)), cut_key(&(head + &b)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_key_has_a_path_of_legal_names_that_leads_back(text in piece()) {
        let key = cut_key(&text);
        let path = split(&key);
        let all: String = path.iter().map(Component::suffix).collect();
        prop_assert_eq!(&all, key.as_str());
        prop_assert_eq!(join(&path), Some(key));
        for component in &path {
            prop_assert_eq!(Component::from_bytes(component.as_bytes()), Some(component.clone()));
            for shadowed in [false, true] {
                let name = component.name(shadowed);
                prop_assert_eq!(Name::new(name.as_bytes()), Ok(name.clone()));
                prop_assert!(name.candidates().contains(component), "{:?} from {:?}", component, name);
            }
        }
    }

    #[test]
    fn every_name_with_a_component_is_the_name_of_it(
        bytes in prop_oneof![
            piece().prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..20),
            prop::collection::vec(prop_oneof![Just(0xE2u8), Just(0x80), Just(0x9B), Just(0xC3), Just(b'x'), Just(b'f')], 0..9),
            (piece(), prop_oneof![Just(SHADOWED), Just(CHUNK)]).prop_map(|(p, end)| (p + end).into_bytes()),
        ],
    ) {
        let Ok(name) = Name::new(&bytes) else { return Ok(()) };
        for component in name.candidates() {
            let shows = [false, true].map(|shadowed| component.name(shadowed) == name);
            prop_assert!(shows.contains(&true), "{:?} is not {:?}", name, component);
            prop_assert_eq!(Component::from_bytes(component.as_bytes()), Some(component.clone()));
        }
    }

    #[test]
    fn any_bytes_without_the_escape_are_a_name_with_a_file(bytes in prop::collection::vec(any::<u8>(), 1..235)) {
        let Ok(name) = Name::new(&bytes) else { return Ok(()) };
        if !name.to_string().contains(ESCAPE) {
            let file = name.candidates().into_iter().find(|c| c.kind() == ComponentKind::File);
            prop_assert_eq!(file.map(|f| f.name(false)), Some(name));
        }
    }

    #[test]
    fn paths_sort_as_their_keys_do((a, b) in two_keys()) {
        prop_assert_eq!(split(&a).cmp(&split(&b)), a.as_bytes().cmp(b.as_bytes()));
    }

    #[test]
    fn siblings_never_share_a_name((a, b) in two_keys(), shadowed: [bool; 2]) {
        let (a, b) = (split(&a), split(&b));
        let Some((a, b)) = a.iter().zip(&b).find(|(a, b)| a != b) else { return Ok(()) };
        if a.name(shadowed[0]) == b.name(shadowed[1]) {
            // only a file and a directory of one text can, which is what `shadowed` is for
            prop_assert_eq!(a.text(), b.text());
            prop_assert_ne!(a.kind(), b.kind());
        }
    }

    #[test]
    fn any_path_of_found_components_is_canonical(texts in prop::collection::vec(piece(), 1..5)) {
        let path: Vec<Component> = texts.iter().flat_map(|t| split(&cut_key(t))).collect();
        // a file can only end a path
        let mut path: Vec<_> = path.into_iter().filter(|c| c.kind() != ComponentKind::File).collect();
        path.extend(texts.first().and_then(|t| Component::new(t, ComponentKind::File).filter(|_| !t.contains('/'))));
        if let Some(key) = join(&path) {
            prop_assert_eq!(split(&key), path);
        }
    }
}
