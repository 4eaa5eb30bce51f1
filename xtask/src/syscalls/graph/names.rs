//! What the names in a function's text may mean: functions, types that are dropped, numbers of
//! calls. See the rules of [`super`].

use std::collections::BTreeSet;

use super::{Graph, Node, Token, is_root};

/// Fields of tables of call numbers that the program only compares with.
const NOT_CALLED: &[&str] = &["ids"];

/// Prefixes of the constants that hold a call's number.
const PREFIXES: [&str; 2] = ["__NR_", "__ARM_NR_"];

impl Graph {
    /// What a piece of a function's text names: functions, and numbers of calls.
    pub(super) fn leads_to(
        &self,
        node: &Node,
        tokens: &[Token],
        calls: &mut BTreeSet<String>,
        depth: u8,
    ) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let word = |at: usize| match tokens.get(at) {
            Some(Token::Word(word)) => Some(word.as_str()),
            _ => None,
        };
        let mark = |at: usize, c: char| tokens.get(at) == Some(&Token::Mark(c));
        let joined = |at: usize| mark(at, ':') && mark(at + 1, ':');
        let mut at = 0;
        while at < tokens.len() {
            let Some(first) = word(at) else {
                at += 1;
                continue;
            };
            let before = at;
            let mut path = vec![first.to_string()];
            at += 1;
            loop {
                // A path goes on behind its parameters.
                let behind = if joined(at) && mark(at + 2, '<') { behind_parameters(tokens, at + 2) } else { at };
                let Some(next) = word(behind + 2).filter(|_| joined(behind)) else { break };
                path.push(next.to_string());
                at = behind + 3;
            }
            let last = path[path.len() - 1].clone();
            if let Some(name) = PREFIXES.iter().find_map(|prefix| last.strip_prefix(prefix)) {
                calls.insert(name.to_string());
                continue;
            }
            // `::<…>` or nothing, then the arguments.
            let turbofish = joined(at) && mark(at + 2, '<');
            let arguments = match tokens.get(at) {
                Some(Token::Open('(', empty)) => Some(!empty),
                _ => None,
            };
            let after_dot = before > 0 && mark(before - 1, '.') && !(before > 1 && mark(before - 2, '.'));
            let after_type = before > 1 && joined(before - 2) && path.len() == 1;
            if after_dot && path.len() == 1 {
                if arguments.is_some() || turbofish {
                    found.extend(self.methods(node, &last, arguments));
                }
                continue;
            }
            if after_type {
                // <T as Trait>::name
                let methods = self.methods(node, &last, None).into_iter();
                let of = if before > 3 { word(before - 4) } else { None };
                found.extend(methods.filter(|id| of.is_none_or(|of| self.nodes[*id].owners.iter().any(|o| o == of))));
                continue;
            }
            if mark(at, '!') && !mark(at + 1, '=') {
                found.extend(self.named(&format!("{last}!")));
                continue;
            }
            for part in &path {
                let behind_reference = before > 0 && mark(before - 1, '&')
                    || before > 1 && mark(before - 2, '&') && word(before - 1) == Some("mut")
                    || before > 2 && mark(before - 3, '&') && mark(before - 2, '\'')
                    || before > 3 && mark(before - 4, '&') && mark(before - 3, '\'') && word(before - 1) == Some("mut");
                if part.starts_with(char::is_uppercase) && !behind_reference {
                    self.drops(node, part, &mut found, &mut BTreeSet::new());
                }
            }
            let ids = self.path(node, &path, arguments.is_some() || turbofish);
            // TABLE.field: of a table of numbers, that one.
            let is_field = mark(at, '.') && !matches!(tokens.get(at + 2), Some(Token::Open('(', _)));
            let field = if is_field { word(at + 1) } else { None };
            match field.filter(|_| last.chars().all(|c| c.is_uppercase() || c == '_')) {
                Some(field) => {
                    for id in ids {
                        self.field(id, field, calls, &mut found, depth);
                    }
                }
                None => found.extend(ids),
            }
        }
        found
    }

    /// The initializer of a constant's field. If the constant's value is another constant, of that
    /// one's field.
    fn field(&self, id: usize, field: &str, calls: &mut BTreeSet<String>, found: &mut BTreeSet<usize>, depth: u8) {
        const CONSTANTS_OF_CONSTANTS: u8 = 4;
        if NOT_CALLED.contains(&field) {
            return;
        }
        if depth > CONSTANTS_OF_CONSTANTS {
            found.insert(id);
            return;
        }
        let node = &self.nodes[id];
        let tokens = &node.tokens;
        let start = (0..tokens.len()).find(|&at| {
            tokens[at] == Token::Word(field.to_string())
                && tokens.get(at + 1) == Some(&Token::Mark(':'))
                && at > 0
                && matches!(tokens[at - 1], Token::Open('{', _) | Token::Mark(','))
        });
        if let Some(start) = start {
            let end = (start..tokens.len()).find(|&at| matches!(tokens[at], Token::Mark(',') | Token::Close));
            found.extend(self.leads_to(node, &tokens[start + 2..end.unwrap_or(tokens.len())], calls, depth + 1));
            return;
        }
        let mut no_calls = BTreeSet::new();
        let next = self.leads_to(node, tokens, &mut no_calls, depth + 1);
        let constants =
            next.iter().filter(|next| **next != id && self.nodes[**next].name.starts_with(char::is_uppercase));
        if no_calls.is_empty() && constants.clone().count() > 0 {
            constants.for_each(|next| self.field(*next, field, calls, found, depth + 1));
        } else {
            found.insert(id); // It is no table: the whole constant.
        }
    }

    fn named(&self, name: &str) -> impl Iterator<Item = usize> {
        self.by_name.get(name).into_iter().flatten().copied()
    }

    /// The methods that a name may mean.
    fn methods(&self, caller: &Node, name: &str, arguments: Option<bool>) -> Vec<usize> {
        let own = caller.module.first();
        let visible = |node: &Node| {
            let top = node.module.first();
            top == own
                || own.and_then(|own| self.named.get(own)).is_some_and(|named| top.is_some_and(|t| named.contains(t)))
        };
        let fits = |id: &usize| {
            let node = &self.nodes[*id];
            let more = node.method;
            (more.is_some() || arguments.is_none())
                && !node.owners.is_empty()
                && arguments.is_none_or(|given| more == Some(given))
                && visible(node)
        };
        self.named(name).filter(fits).collect()
    }

    /// The functions that a path may mean; `called` says whether arguments follow.
    fn path(&self, caller: &Node, path: &[String], called: bool) -> Vec<usize> {
        let imported = self.imports.get(&caller.module).and_then(|names| names.get(&path[0]));
        let path: Vec<&str> = match imported {
            Some(from) => from.iter().chain(&path[1..]).map(String::as_str).collect(),
            None => path.iter().map(String::as_str).collect(),
        };
        let (last, top) = (path[path.len() - 1], caller.module.first());
        let same_top = |node: &Node| node.module.first() == top;
        if matches!(path[0], "core" | "std" | "alloc") {
            return Vec::new();
        }
        let [.., of, _] = path[..] else {
            let constant = last.starts_with(char::is_uppercase);
            let near = |node: &Node| same_top(node) && (called || constant || node.module == caller.module);
            return self.named(last).filter(|id| self.nodes[*id].owners.is_empty() && near(&self.nodes[*id])).collect();
        };
        if of == "Self" {
            let own = |node: &Node| node.owners.iter().any(|owner| caller.owners.contains(owner));
            return self.named(last).filter(|id| own(&self.nodes[*id])).collect();
        }
        if of.starts_with(char::is_uppercase) {
            let owned_by = |owner: &str| -> Vec<usize> {
                self.named(last).filter(|id| self.nodes[*id].owners.iter().any(|name| name == owner)).collect()
            };
            let mut own = owned_by(of);
            // A function that the machine does not override is the trait's.
            if own.is_empty() && of == "Cpu" {
                own = owned_by("Arch");
            }
            // Of types with one name, the one that was imported, else the one that is near.
            let from = if path.len() > 2 { Some(path[path.len() - 3]) } else { None };
            let is_meant = |node: &Node| match from {
                Some("self" | "super") | None => same_top(node),
                Some(from) => is_root(from) || node.module.iter().any(|part| part == from),
            };
            if own.iter().any(|id| is_meant(&self.nodes[*id])) {
                own.retain(|id| is_meant(&self.nodes[*id]));
            }
            return own;
        }
        let fits = |node: &Node| match of {
            "self" | "super" => same_top(node),
            _ if is_root(of) => node.module.len() <= 1 || self.is_passed_on(last, node),
            _ => node.module.iter().any(|part| part == of),
        };
        self.named(last).filter(|id| self.nodes[*id].owners.is_empty() && fits(&self.nodes[*id])).collect()
    }

    /// Whether a crate's root imports the function of this name from the module of this one: then a
    /// path from the root means it too.
    fn is_passed_on(&self, name: &str, node: &Node) -> bool {
        let is_root_module = |module: &[String]| module.first().is_none_or(|top| module.len() == 1 && is_root(top));
        let of_roots = self.imports.iter().filter(|(module, _)| is_root_module(module));
        of_roots.filter_map(|(_, names)| names.get(name)).any(|from| match &from[..] {
            [.., of, _] => node.module.contains(of),
            _ => false,
        })
    }

    /// What runs when a value of this type is dropped.
    fn drops(&self, node: &Node, name: &str, found: &mut BTreeSet<usize>, seen: &mut BTreeSet<String>) {
        let imported = self.imports.get(&node.module).is_some_and(|names| names.contains_key(name));
        self.drops_of(&node.module, imported, name, found, seen);
    }

    fn drops_of(
        &self,
        module: &[String],
        anywhere: bool,
        name: &str,
        found: &mut BTreeSet<usize>,
        seen: &mut BTreeSet<String>,
    ) {
        let near = |other: &[String]| anywhere || other.first() == module.first();
        let types = self.types.get(name).into_iter().flatten().filter(|t| near(&t.module));
        for found_type in types {
            if !seen.insert(format!("{}::{name}", found_type.module.join("::"))) {
                continue;
            }
            let is_its =
                |node: &Node| node.owners.iter().any(|o| o == name) && node.module.first() == found_type.module.first();
            found.extend(self.named("drop").filter(|id| is_its(&self.nodes[*id])));
            for part in &found_type.contains {
                let imported = self.imports.get(&found_type.module).is_some_and(|names| names.contains_key(part));
                self.drops_of(&found_type.module, imported, part, found, seen);
            }
        }
    }
}

/// The place after `<…>`, which begins at `at`.
fn behind_parameters(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0;
    for (offset, token) in tokens[at..].iter().enumerate() {
        match token {
            Token::Mark('<') => depth += 1,
            Token::Mark('>') if tokens[at + offset - 1] != Token::Mark('-') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + offset + 1;
        }
    }
    tokens.len()
}
