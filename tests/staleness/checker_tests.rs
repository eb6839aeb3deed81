//! Histories made by hand, right and wrong: what the checker must let pass, and what it must refuse.

use super::*;

const RECHECK: u64 = 1_000;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A key of which version 1 was in S3 from 0 on, version 2 from 10 s on; version 3 is its removal at 20 s.
struct Case {
    history: History,
    record: Record,
    is_strict: bool,
}

impl Case {
    fn new() -> Case {
        let mut history = History::of_keys(1);
        for (number, ms) in [(1, 0), (2, 10_000), (3, 20_000), (4, 30_000)] {
            *history.version(0, number) = Version { in_s3: Some(at(ms)), is_removal: number == 3, written: None };
        }
        Case { history, record: Record::default(), is_strict: false }
    }

    fn by(mut self, server: usize, life: u32, how: How, (begun, ended): (u64, u64), shown: Shown) -> Case {
        let life = Life { server, number: life };
        self.record.answers.push(Answer { life, key: 0, how, begun: at(begun), ended: at(ended), shown });
        self
    }

    fn getattr(self, begun: u64, shown: Shown) -> Case {
        self.by(0, 1, How::Getattr, (begun, begun + 1), shown)
    }

    fn quiet(mut self, begun: u64) -> Case {
        self.record.quiets.push(Quiet { life: LIFE, begun: at(begun), ended: at(begun + 1) });
        self
    }

    fn hint(mut self, number: u64, ended: u64) -> Case {
        self.record.hints.push(Hinted { life: LIFE, key: 0, number, ended: at(ended) });
        self
    }

    fn strict(self) -> Case {
        Case { is_strict: true, ..self }
    }

    fn broken(&self) -> Vec<Rule> {
        let promise = Promise { recheck: at(RECHECK), is_strict: vec![self.is_strict; 2] };
        let mut rules: Vec<_> =
            judge(&self.history, &self.record, &promise).breaches.iter().map(|breach| breach.rule).collect();
        rules.dedup();
        rules
    }

    fn passes(self) {
        assert_eq!(self.broken(), []);
    }

    fn breaks(self, rule: Rule) {
        assert_eq!(self.broken(), [rule]);
    }
}

use super::super::history::{Version, Written};
use Shown::{Nothing, Number, Torn};

const LIFE: Life = Life { server: 0, number: 1 };

#[test]
fn fresh_answers_pass() {
    Case::new().getattr(5_000, Number(1)).getattr(10_001, Number(2)).getattr(20_001, Nothing).passes();
}

#[test]
fn version_that_never_was_is_refused() {
    Case::new().getattr(5_000, Number(9)).breaks(Rule::WasThere);
}

#[test]
fn version_before_its_time_is_refused() {
    Case::new().getattr(9_000, Number(2)).breaks(Rule::WasThere);
    Case::new().by(0, 1, How::Read, (9_000, 10_000), Number(2)).passes();
    Case::new().getattr(5_000, Nothing).breaks(Rule::WasThere);
}

#[test]
fn version_written_here_is_seen_here_alone() {
    let written = |server| {
        let mut case = Case::new();
        case.history.version(0, 5).written = Some(Written { server: 0, begun: at(31_000), ended: None });
        case.by(server, 1, How::Read, (31_500, 31_501), Number(5))
    };
    written(0).passes();
    written(1).breaks(Rule::WasThere);
}

#[test]
fn bytes_of_two_versions_are_refused() {
    Case::new().getattr(5_000, Torn).breaks(Rule::OneVersion);
}

#[test]
fn read_beside_a_write_at_the_same_server_may_have_a_part_of_it() {
    let read = |server, how, begun| {
        let mut case = Case::new();
        case.history.version(0, 5).written = Some(Written { server: 0, begun: at(31_000), ended: Some(at(31_010)) });
        case.by(server, 1, how, (begun, begun + 5), Torn)
    };
    read(0, How::Read, 30_996).passes();
    read(0, How::Read, 31_010).passes();
    read(0, How::Read, 30_990).breaks(Rule::OneVersion);
    read(0, How::Read, 31_011).breaks(Rule::OneVersion);
    read(0, How::Getattr, 31_005).breaks(Rule::OneVersion);
    read(1, How::Read, 31_005).breaks(Rule::OneVersion);
}

#[test]
fn older_version_after_a_newer_one_is_refused_on_one_server() {
    let case = || Case::new().getattr(10_100, Number(2));
    case().getattr(10_200, Number(1)).breaks(Rule::NeverBack);
    case().by(0, 2, How::Getattr, (10_200, 10_201), Number(1)).breaks(Rule::NeverBack);
    case().by(1, 1, How::Getattr, (10_200, 10_201), Number(1)).passes();
}

#[test]
fn answers_under_way_at_the_same_time_may_come_in_any_order() {
    Case::new().getattr(10_100, Number(2)).by(0, 1, How::Read, (10_100, 10_300), Number(1)).passes();
}

#[test]
fn name_that_comes_back_after_it_was_gone_is_refused_until_it_is_there_again() {
    let case = || Case::new().getattr(20_100, Nothing);
    case().getattr(20_200, Number(2)).breaks(Rule::NeverBack);
    case().getattr(30_200, Number(4)).passes();
}

/// The request at 11.5 s has S3 asked; what was under way at 11.6 s has ended at 11.601 s.
fn asked() -> Case {
    Case::new().quiet(10_500).getattr(11_500, Number(1)).quiet(11_600)
}

#[test]
fn request_after_the_check_behind_a_stale_one_must_be_fresh() {
    asked().getattr(11_700, Number(1)).breaks(Rule::F2);
    asked().getattr(11_700, Number(2)).passes();
    asked().by(0, 1, How::Read, (11_600, 11_900), Number(1)).passes();
}

#[test]
fn request_may_be_stale_while_no_check_was_due() {
    let just_checked = Case::new().quiet(10_100).getattr(10_900, Number(1)).quiet(10_950);
    just_checked.getattr(11_500, Number(1)).passes();
}

#[test]
fn request_may_be_stale_while_a_check_sent_before_the_change_may_be_under_way() {
    let never_quiet_before = Case::new().getattr(11_500, Number(1)).quiet(11_600);
    never_quiet_before.getattr(11_700, Number(1)).passes();
}

#[test]
fn start_of_a_server_forgives_what_its_last_life_had_asked() {
    asked().by(0, 2, How::Getattr, (11_700, 11_701), Number(1)).passes();
}

#[test]
fn listing_has_nothing_asked_about_files() {
    let listed = Case::new().quiet(10_500).by(0, 1, How::List, (11_500, 11_501), Number(1)).quiet(11_600);
    listed.getattr(11_700, Number(1)).passes();
}

#[test]
fn file_that_is_gone_for_long_must_not_be_shown() {
    let seen = || Case::new().quiet(20_500).getattr(21_500, Number(2)).quiet(21_600);
    seen().getattr(21_700, Number(2)).breaks(Rule::F2);
    seen().getattr(21_700, Nothing).passes();
}

#[test]
fn absence_is_believed_for_recheck_and_no_longer() {
    let gone = || Case::new().getattr(20_100, Nothing).quiet(30_100);
    gone().getattr(30_900, Nothing).passes();
    gone().getattr(31_003, Nothing).breaks(Rule::F4);
}

#[test]
fn second_open_in_the_strict_mode_must_be_fresh() {
    let first = || Case::new().strict().quiet(10_500).getattr(11_500, Number(1));
    first().getattr(11_502, Number(1)).breaks(Rule::F6);
    first().by(0, 1, How::Read, (11_502, 11_503), Number(1)).passes();
    first().getattr(11_501, Number(2)).passes();
    Case { is_strict: false, ..first() }.getattr(11_502, Number(1)).passes();
}

#[test]
fn answer_after_a_hint_was_taken_and_looked_into_must_be_fresh() {
    let told = || Case::new().hint(2, 10_010).quiet(10_020);
    told().getattr(10_015, Number(1)).passes();
    told().getattr(10_030, Number(1)).breaks(Rule::Hint);
    told().getattr(10_030, Number(2)).passes();
    told().by(1, 1, How::Getattr, (10_030, 10_031), Number(1)).passes();
    Case::new().hint(1, 10_010).quiet(10_020).getattr(10_030, Number(1)).passes();
}

#[test]
fn absence_is_not_believed_once_a_hint_was_taken() {
    let told = || Case::new().getattr(20_100, Nothing).hint(4, 30_010);
    told().getattr(30_011, Nothing).breaks(Rule::Hint);
    told().getattr(30_009, Nothing).passes();
}

#[test]
fn stale_answers_are_counted_and_timed() {
    let case = Case::new().getattr(10_100, Number(1)).getattr(10_300, Number(1)).getattr(10_400, Number(2));
    let promise = Promise { recheck: at(RECHECK), is_strict: vec![false] };
    let findings = judge(&case.history, &case.record, &promise);
    assert_eq!((findings.answers, findings.stale, findings.longest), (3, 2, at(300)));
}

#[test]
fn bound_answers_are_counted() {
    let promise = Promise { recheck: at(RECHECK), is_strict: vec![false] };
    let case = asked().getattr(11_700, Number(2));
    assert_eq!(judge(&case.history, &case.record, &promise).bound(Rule::F2), 1);
}
