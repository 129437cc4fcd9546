//! What a service cannot have is refused at the token that is in the way, with what is allowed instead.
//!
//! Nothing of it needs more than the macro, so little is compiled. After an intended change: `TRYBUILD=overwrite cargo test`.

#[test]
fn refusals_point_at_the_token_and_say_what_is_allowed() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
