//! The part of a compiled policy that says who may do what: classes, types, attributes, booleans, allow rules.
//!
//! Reads version 30 for Xen without MLS, which is what `checkpolicy -t Xen -c 30` writes, and refuses everything else.
//! It is the file that the hypervisor loads; what a rule in a `.te` file was meant to say plays no part here.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use super::reader::Reader;

const MAGIC: u32 = 0xf97c_ff8c;
const TARGET: &str = "XenFlask";
const VERSION: u32 = 30;
const CONFIG_MLS: u32 = 1;
/// A permission that the policy does not know would be granted (ALLOW_UNKNOWN of policydb.h).
const CONFIG_ALLOW_UNKNOWN: u32 = 4;
const SYMBOL_TABLES: u32 = 8;
/// Initial SIDs, PIRQs, I/O ports, I/O memory, PCI devices, device tree nodes.
const OBJECT_CONTEXTS: u32 = 6;
/// `TYPEDATUM_PROPERTY_ATTRIBUTE` of policydb.h.
const TYPE_IS_ATTRIBUTE: u32 = 2;
/// `AVTAB_ALLOWED` and `AVTAB_AV | AVTAB_TYPE` of avtab.h.
const AVTAB_ALLOWED: u16 = 1;
const AVTAB_KINDS: u16 = 0x77;
/// `CEXPR_NAMES` of constraint.h.
const CONSTRAINT_NAMES: u32 = 5;

/// A value as the file numbers it: from 1.
pub type Value = u32;

/// An object class and the names of its permission bits.
#[derive(Debug)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Bit number (from 0) to permission.
    pub permissions: BTreeMap<u32, String>,
}

/// A type or an attribute.
#[derive(Debug)]
pub struct Type {
    /// Its name.
    pub name: String,
    /// True of attributes.
    pub attribute: bool,
}

/// One allow rule. Source and target may be attributes.
#[derive(Debug)]
pub struct Rule {
    /// Who.
    pub source: Value,
    /// To whom.
    pub target: Value,
    /// The object class.
    pub class: Value,
    /// Bit mask of the class's permissions.
    pub permissions: u32,
    /// The condition under which the rule holds, as in the source: `name`, `!name`.
    pub condition: Option<String>,
}

/// What a compiled policy allows.
#[derive(Debug, Default)]
pub struct Policy {
    /// Classes by value.
    pub classes: BTreeMap<Value, Class>,
    /// Types and attributes by value.
    pub types: BTreeMap<Value, Type>,
    /// Booleans: name and value at load.
    pub booleans: BTreeMap<String, bool>,
    /// For each type its attributes and itself.
    pub membership: BTreeMap<Value, BTreeSet<Value>>,
    /// Every allow rule.
    pub rules: Vec<Rule>,
    boolean_names: BTreeMap<Value, String>,
}

impl Policy {
    /// Parses the bytes of a policy file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut policy = Self::default();
        let mut reader = Reader::new(bytes);
        header(&mut reader).context("header")?;
        let types = policy.symbols(&mut reader).context("symbol tables")?;
        let rules = reader.u32()?;
        policy.avtab(&mut reader, rules, None).context("rules")?;
        policy.conditionals(&mut reader).context("conditional rules")?;
        skip_to_membership(&mut reader).context("roles and object contexts")?;
        policy.memberships(&mut reader, types).context("attributes")?;
        reader.finish()?;
        Ok(policy)
    }

    /// The symbol tables in the file's order: commons, classes, roles, types, users, booleans, levels, categories.
    /// Returns the number of types.
    fn symbols(&mut self, reader: &mut Reader<'_>) -> Result<u32> {
        empty_table(reader, "commons")?;
        let [_, classes] = reader.u32s()?;
        for _ in 0..classes {
            self.class(reader)?;
        }
        let [_, roles] = reader.u32s()?;
        for _ in 0..roles {
            let [len, _value, _bounds] = reader.u32s()?;
            reader.name(len)?;
            reader.bitmap()?;
            reader.bitmap()?;
        }
        let [types, entries] = reader.u32s()?;
        for _ in 0..entries {
            let [len, value, properties, _bounds] = reader.u32s()?;
            let name = reader.name(len)?;
            self.types.insert(value, Type { name, attribute: properties & TYPE_IS_ATTRIBUTE != 0 });
        }
        let [_, users] = reader.u32s()?;
        for _ in 0..users {
            skip_user(reader)?;
        }
        let [_, booleans] = reader.u32s()?;
        for _ in 0..booleans {
            let [value, state, len] = reader.u32s()?;
            let name = reader.name(len)?;
            self.booleans.insert(name.clone(), state != 0);
            self.boolean_names.insert(value, name);
        }
        empty_table(reader, "levels")?;
        empty_table(reader, "categories")?;
        Ok(types)
    }

    fn class(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let [len, common_len, value, _, entries, constraints] = reader.u32s()?;
        let name = reader.name(len)?;
        ensure!(common_len == 0, "class {name} inherits permissions");
        let mut permissions = BTreeMap::new();
        for _ in 0..entries {
            let [len, value] = reader.u32s()?;
            ensure!((1..=u32::BITS).contains(&value), "permission {value} of class {name}");
            permissions.insert(value - 1, reader.name(len)?);
        }
        skip_constraints(reader, constraints)?;
        let validate_transitions = reader.u32()?;
        skip_constraints(reader, validate_transitions)?;
        let _default_user_role_range_type: [u32; 4] = reader.u32s()?;
        self.classes.insert(value, Class { name, permissions });
        Ok(())
    }

    /// `count` rules of an access vector table; those that allow are kept.
    fn avtab(&mut self, reader: &mut Reader<'_>, count: u32, condition: Option<&str>) -> Result<()> {
        for _ in 0..count {
            let (source, target, class) = (reader.u16()?, reader.u16()?, reader.u16()?);
            let kind = reader.u16()? & AVTAB_KINDS;
            ensure!(kind.is_power_of_two(), "a rule of kind {kind:#x}");
            let permissions = reader.u32()?;
            if kind == AVTAB_ALLOWED {
                let condition = condition.map(str::to_owned);
                let rule =
                    Rule { source: source.into(), target: target.into(), class: class.into(), permissions, condition };
                self.rules.push(rule);
            }
        }
        Ok(())
    }

    fn conditionals(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let nodes = reader.u32()?;
        for _ in 0..nodes {
            let [_state, terms] = reader.u32s()?;
            let condition = self.expression(reader, terms)?;
            let when_true = reader.u32()?;
            self.avtab(reader, when_true, Some(&condition))?;
            let when_false = reader.u32()?;
            self.avtab(reader, when_false, Some(&format!("!{condition}")))?;
        }
        Ok(())
    }

    /// A condition in postfix order (cond_expr of conditional.h) as infix text.
    fn expression(&self, reader: &mut Reader<'_>, terms: u32) -> Result<String> {
        let mut stack: Vec<String> = Vec::new();
        for _ in 0..terms {
            let [operator, boolean] = reader.u32s()?;
            let infix = match operator {
                1 => {
                    stack.push(self.boolean_names.get(&boolean).context("an unknown boolean")?.clone());
                    continue;
                }
                2 => {
                    let operand = stack.pop().context("a condition without operand")?;
                    stack.push(format!("!{operand}"));
                    continue;
                }
                3 => "||",
                4 => "&&",
                5 => "^",
                6 => "==",
                7 => "!=",
                _ => bail!("condition operator {operator}"),
            };
            let right = stack.pop().context("a condition without operand")?;
            let left = stack.pop().context("a condition without operand")?;
            stack.push(format!("({left} {infix} {right})"));
        }
        ensure!(stack.len() == 1, "a condition with {} results", stack.len());
        stack.pop().context("an empty condition")
    }

    fn memberships(&mut self, reader: &mut Reader<'_>, types: u32) -> Result<()> {
        for value in 1..=types {
            let mut attributes: BTreeSet<Value> = reader.bitmap()?.into_iter().map(|bit| bit + 1).collect();
            attributes.insert(value);
            self.membership.insert(value, attributes);
        }
        Ok(())
    }
}

fn header(reader: &mut Reader<'_>) -> Result<()> {
    let [magic, len] = reader.u32s()?;
    ensure!(magic == MAGIC, "no compiled FLASK policy: magic {magic:#x}");
    let target = reader.name(len)?;
    let [version, config, tables, contexts] = reader.u32s()?;
    ensure!(target == TARGET && version == VERSION, "a policy for {target} version {version}, not {TARGET} {VERSION}");
    ensure!(config & CONFIG_MLS == 0, "a policy with MLS");
    ensure!(config & CONFIG_ALLOW_UNKNOWN == 0, "a policy that allows what it does not know");
    ensure!(tables == SYMBOL_TABLES && contexts == OBJECT_CONTEXTS, "{tables} tables, {contexts} kinds of contexts");
    let _capabilities = reader.bitmap()?;
    ensure!(reader.bitmap()?.is_empty(), "a permissive type: nothing would be denied to it");
    Ok(())
}

fn empty_table(reader: &mut Reader<'_>, what: &str) -> Result<()> {
    let [_, entries] = reader.u32s()?;
    ensure!(entries == 0, "{entries} {what}: not a policy that Xen uses");
    Ok(())
}

fn skip_constraints(reader: &mut Reader<'_>, count: u32) -> Result<()> {
    for _ in 0..count {
        let [_permissions, expressions] = reader.u32s()?;
        for _ in 0..expressions {
            let [kind, _attribute, _operator] = reader.u32s()?;
            if kind == CONSTRAINT_NAMES {
                for _names_then_types_then_negated in 0..3 {
                    reader.bitmap()?;
                }
                reader.u32()?;
            }
        }
    }
    Ok(())
}

fn skip_user(reader: &mut Reader<'_>) -> Result<()> {
    let [len, _value, _bounds] = reader.u32s()?;
    reader.name(len)?;
    let _roles = reader.bitmap()?;
    skip_range(reader)?;
    let _default_sensitivity = reader.u32()?;
    reader.bitmap()?;
    Ok(())
}

/// An MLS range (mls_read_range_helper): present even in a policy without MLS.
fn skip_range(reader: &mut Reader<'_>) -> Result<()> {
    let levels = reader.u32()?;
    ensure!(levels <= 2, "a range of {levels} levels");
    for _ in 0..levels {
        reader.u32()?;
    }
    for _ in 0..levels.max(1) {
        reader.bitmap()?;
    }
    Ok(())
}

fn skip_context(reader: &mut Reader<'_>) -> Result<()> {
    let _user_role_type: [u32; 3] = reader.u32s()?;
    skip_range(reader)
}

/// Role transitions, role allows, file name transitions, object contexts, genfs, range transitions.
fn skip_to_membership(reader: &mut Reader<'_>) -> Result<()> {
    for words in [4, 2] {
        let entries = reader.u32()?;
        for _ in 0..entries {
            reader.take(words * 4)?;
        }
    }
    ensure!(reader.u32()? == 0, "file name transitions");
    for key_len in [4, 4, 8, 16, 4] {
        let entries = reader.u32()?;
        for _ in 0..entries {
            reader.take(key_len)?;
            skip_context(reader)?;
        }
    }
    let device_tree_nodes = reader.u32()?;
    for _ in 0..device_tree_nodes {
        let len = reader.u32()?;
        reader.name(len)?;
        skip_context(reader)?;
    }
    ensure!(reader.u32()? == 0, "genfs contexts");
    ensure!(reader.u32()? == 0, "range transitions");
    Ok(())
}
