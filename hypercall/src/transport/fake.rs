//! A hypervisor made of a script, for tests of the typed calls and of their callers. It is stricter than Xen:
//! a call that the script does not expect ends the test, as does an access to memory that is not on loan; and loans are
//! copies at invented addresses, so that a caller who reads a slice before its loan ends, or passes a slice's own
//! address, is found out on the host.

use core::cell::RefCell;
use std::boxed::Box;
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Loan, Transport};
use crate::Result;

/// Where invented addresses start: below any that a program on the host has, and not mapped.
const FIRST_ADDRESS: u64 = 0x1000;

/// One hypercall as it arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// The hypercall's number.
    pub number: u32,
    /// Its arguments, as many as were passed.
    pub args: Vec<u64>,
}

/// The memory on loan while a call is answered.
#[derive(Default, Debug)]
pub struct Memory {
    /// Address to bytes and whether Xen may write them.
    loans: BTreeMap<u64, (Vec<u8>, bool)>,
    next: u64,
}

impl Memory {
    fn add(&mut self, bytes: &[u8], writable: bool) -> u64 {
        let address = FIRST_ADDRESS + self.next;
        // An empty page between two loans catches an access that runs over.
        self.next += (bytes.len() as u64 / 4096 + 2) * 4096;
        self.loans.insert(address, (bytes.to_vec(), writable));
        address
    }

    fn find(&mut self, address: u64, len: usize, write: bool) -> &mut [u8] {
        let (start, (bytes, writable)) =
            self.loans.range_mut(..=address).next_back().unwrap_or_else(|| panic!("{address:#x} is not on loan"));
        let offset = (address - start) as usize;
        assert!(offset + len <= bytes.len(), "{len} bytes at {address:#x} exceed a loan of {}", bytes.len());
        assert!(*writable || !write, "{address:#x} is on loan for reading only");
        &mut bytes[offset..offset + len]
    }

    /// Reads bytes as Xen would.
    ///
    /// # Panics
    /// If they are not on loan.
    pub fn bytes(&mut self, address: u64, len: usize) -> Vec<u8> {
        self.find(address, len, false).to_vec()
    }

    /// Reads a value as Xen would.
    ///
    /// # Panics
    /// If it is not on loan.
    pub fn read<V: FromBytes>(&mut self, address: u64) -> V {
        let bytes = self.find(address, size_of::<V>(), false);
        V::read_from_bytes(bytes).unwrap_or_else(|_| unreachable!("the length is the value's"))
    }

    /// Writes a value as Xen would.
    ///
    /// # Panics
    /// If the place is not on loan for writing.
    pub fn write<V: IntoBytes + Immutable + ?Sized>(&mut self, address: u64, value: &V) {
        self.find(address, size_of_val(value), true).copy_from_slice(value.as_bytes());
    }
}

type Answer = Box<dyn FnOnce(&Call, &mut Memory) -> i64>;

#[derive(Default)]
struct State {
    memory: Memory,
    script: VecDeque<Answer>,
    calls: Vec<Call>,
}

/// The scripted hypervisor.
#[derive(Default)]
pub struct Fake {
    state: RefCell<State>,
}

impl core::fmt::Debug for Fake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("Fake").field("calls", &state.calls).field("left", &state.script.len()).finish()
    }
}

impl Fake {
    /// A hypervisor that expects no call.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Expects one more call, which `answer` examines and answers.
    pub fn expect(&self, answer: impl FnOnce(&Call, &mut Memory) -> i64 + 'static) -> &Self {
        self.state.borrow_mut().script.push_back(Box::new(answer));
        self
    }

    /// Expects one more call, whatever it is, and answers with this value.
    pub fn answer(&self, value: i64) -> &Self {
        self.expect(move |_, _| value)
    }

    /// The calls that arrived, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.state.borrow().calls.clone()
    }

    /// Asserts that the script is played and that no loan is left.
    ///
    /// # Panics
    /// If a call is still expected, or a loan was never ended.
    pub fn finish(&self) {
        let state = self.state.borrow();
        assert!(state.script.is_empty(), "{} expected calls did not come", state.script.len());
        assert!(state.memory.loans.is_empty(), "{} loans were never ended", state.memory.loans.len());
    }

    fn issue(&self, number: u32, args: &[u64]) -> i64 {
        let call = Call { number, args: args.to_vec() };
        let mut state = self.state.borrow_mut();
        state.calls.push(call.clone());
        let answer = state.script.pop_front().unwrap_or_else(|| panic!("unexpected hypercall {call:x?}"));
        answer(&call, &mut state.memory)
    }

    fn lease<'a>(&'a self, bytes: &[u8], target: Option<&'a mut [u8]>, writable: bool) -> Copied<'a> {
        let address = self.state.borrow_mut().memory.add(bytes, writable);
        Copied { fake: self, address, target }
    }
}

/// A copy of a slice at an invented address.
#[derive(Debug)]
pub struct Copied<'a> {
    fake: &'a Fake,
    address: u64,
    target: Option<&'a mut [u8]>,
}

impl Loan for Copied<'_> {
    fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Copied<'_> {
    fn drop(&mut self) {
        let Some((bytes, _)) = self.fake.state.borrow_mut().memory.loans.remove(&self.address) else { return };
        if let Some(target) = &mut self.target {
            target.copy_from_slice(&bytes);
        }
    }
}

// SAFETY: nothing reads or writes a loan but the script, through `Memory`, which holds the bytes until the drop.
unsafe impl Transport for Fake {
    type Loan<'a> = Copied<'a>;

    fn lend<'a>(&'a self, bytes: &'a [u8]) -> Result<Copied<'a>> {
        Ok(self.lease(bytes, None, false))
    }

    fn lend_mut<'a>(&'a self, bytes: &'a mut [u8]) -> Result<Copied<'a>> {
        let copy = bytes.to_vec();
        Ok(self.lease(&copy, Some(bytes), true))
    }

    unsafe fn call1(&self, number: u32, a1: u64) -> i64 {
        self.issue(number, &[a1])
    }

    unsafe fn call2(&self, number: u32, a1: u64, a2: u64) -> i64 {
        self.issue(number, &[a1, a2])
    }

    unsafe fn call3(&self, number: u32, a1: u64, a2: u64, a3: u64) -> i64 {
        self.issue(number, &[a1, a2, a3])
    }

    unsafe fn call4(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64) -> i64 {
        self.issue(number, &[a1, a2, a3, a4])
    }

    unsafe fn call5(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64, a5: u64) -> i64 {
        self.issue(number, &[a1, a2, a3, a4, a5])
    }
}
