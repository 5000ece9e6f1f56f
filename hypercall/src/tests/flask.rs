//! Booleans of the policy.

use crate::abi::flask::{BY_NAME, FlaskOp};
use crate::flask::{boolean, set_boolean};
use crate::transport::fake::Fake;

#[test]
fn a_boolean_is_asked_by_name() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args.len()), (27, 1));
        let mut op = memory.read::<FlaskOp>(call.args[0]);
        assert_eq!((op.cmd, op.interface_version, op.boolean.bool_id), (11, 1, BY_NAME));
        assert_eq!(memory.bytes(op.boolean.name, op.boolean.size as usize), b"locked");
        op.boolean.enforcing = 1;
        memory.write(call.args[0], &op);
        0
    });
    assert_eq!(boolean(&fake, "locked"), Ok(Some(true)));
    for none in [-2, -38] {
        fake.answer(none);
        assert_eq!(boolean(&fake, "locked"), Ok(None), "{none}");
    }
    fake.answer(-13);
    assert!(boolean(&fake, "locked").is_err());
}

#[test]
fn a_boolean_is_set_at_once() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        let op = memory.read::<FlaskOp>(call.args[0]);
        assert_eq!((op.cmd, op.boolean.new_value, op.boolean.commit), (12, 1, 1));
        0
    });
    assert_eq!(set_boolean(&fake, "locked", true), Ok(()));
    fake.answer(-2);
    assert!(set_boolean(&fake, "locked", true).is_err(), "a boolean that is not there cannot be on");
}
