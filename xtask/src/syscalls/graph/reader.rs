//! Reads the functions, constants and types of a graph from a crate's files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, ImplItem, Item, Meta, TraitItem, UseTree};

use super::{Cfg, Graph, Node, Token, Type};

/// Reads the modules of one crate.
pub struct Reader<'a> {
    pub cfg: Cfg,
    pub graph: &'a mut Graph,
    /// Of the crate's root file.
    pub folder: PathBuf,
    /// How many parts of a module's path name the crate.
    pub depth: usize,
}

impl Reader<'_> {
    /// Reads a module's file, and those of the modules in it.
    pub fn file(&mut self, file: &Path, module: &[String]) -> Result<()> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        self.items(parsed.items, module)
    }

    pub fn items(&mut self, items: Vec<Item>, module: &[String]) -> Result<()> {
        for item in items {
            match item {
                Item::Mod(item) if self.applies(&item.attrs) => {
                    let mut path = module.to_vec();
                    path.push(item.ident.to_string());
                    match item.content {
                        Some((_, items)) => self.items(items, &path)?,
                        None => {
                            let parts = &path[self.depth..];
                            let file = match path_attribute(&item.attrs) {
                                // Relative to the folder of the file that says so.
                                Some(file) => {
                                    let above: PathBuf = parts[..parts.len().saturating_sub(2)].iter().collect();
                                    self.folder.join(above).join(file)
                                }
                                None => self.folder.join(parts.join("/") + ".rs"),
                            };
                            self.file(&file, &path)?;
                        }
                    }
                }
                Item::Use(item) if self.applies(&item.attrs) => {
                    let names = self.graph.imports.entry(module.to_vec()).or_default();
                    import(&item.tree, &mut Vec::new(), names);
                }
                Item::Fn(mut item) if self.applies(&item.attrs) => {
                    item.attrs.clear();
                    self.node(module, &[], &item.sig.ident.to_string(), None, item.to_token_stream());
                }
                Item::Const(mut item) if self.applies(&item.attrs) => {
                    item.attrs.clear();
                    self.node(module, &[], &item.ident.to_string(), None, item.to_token_stream());
                }
                Item::Static(mut item) if self.applies(&item.attrs) => {
                    item.attrs.clear();
                    self.node(module, &[], &item.ident.to_string(), None, item.to_token_stream());
                }
                Item::Struct(item) if self.applies(&item.attrs) => {
                    self.type_of(module, &item.ident.to_string(), item.fields.to_token_stream());
                }
                Item::Enum(item) if self.applies(&item.attrs) => {
                    self.type_of(module, &item.ident.to_string(), item.variants.to_token_stream());
                }
                Item::Impl(item) if self.applies(&item.attrs) => {
                    let mut owners = vec![last_word(item.self_ty.to_token_stream())];
                    owners.extend(item.trait_.as_ref().map(|(path, _)| last_word(path.to_token_stream())));
                    for part in item.items {
                        self.part(module, &owners, part);
                    }
                }
                Item::Trait(item) if self.applies(&item.attrs) => {
                    let owners = [item.ident.to_string()];
                    for part in item.items {
                        if let TraitItem::Fn(mut part) = part
                            && part.default.is_some()
                        {
                            part.attrs.clear();
                            let method = part.sig.receiver().map(|_| part.sig.inputs.len() > 1);
                            let name = part.sig.ident.to_string();
                            self.node(module, &owners, &name, method, part.to_token_stream());
                        }
                    }
                }
                Item::Macro(item) if self.applies(&item.attrs) => match &item.ident {
                    Some(name) => {
                        let arms = arms(item.mac.tokens.clone());
                        self.graph.macros.insert(name.to_string(), arms);
                        self.node(module, &[], &format!("{name}!"), None, item.mac.tokens);
                    }
                    None => self.invocation(module, &[], &item.mac),
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn part(&mut self, module: &[String], owners: &[String], part: ImplItem) {
        match part {
            ImplItem::Fn(mut part) if self.applies(&part.attrs) => {
                part.attrs.clear();
                let method = part.sig.receiver().map(|_| part.sig.inputs.len() > 1);
                self.node(module, owners, &part.sig.ident.to_string(), method, part.to_token_stream());
            }
            ImplItem::Const(mut part) if self.applies(&part.attrs) => {
                part.attrs.clear();
                self.node(module, owners, &part.ident.to_string(), None, part.to_token_stream());
            }
            ImplItem::Macro(part) if self.applies(&part.attrs) => self.invocation(module, owners, &part.mac),
            _ => {}
        }
    }

    /// A macro in the place of items: the functions and constants that it defines by name, in its
    /// own text or in the definition's, and all that it says besides.
    fn invocation(&mut self, module: &[String], owners: &[String], call: &syn::Macro) {
        let name = last_word(call.path.to_token_stream());
        let first = call.tokens.clone().into_iter().next().map(|token| token.to_string());
        let arms = self.graph.macros.get(&name).cloned().unwrap_or_default();
        let mut chosen: Vec<_> = arms.iter().filter(|arm| first_of(arm) == first && first.is_some()).collect();
        if chosen.is_empty() {
            chosen = arms.iter().collect();
        }
        let texts: Vec<_> = chosen.into_iter().cloned().chain([call.tokens.clone()]).collect();
        for text in texts {
            for (name, method, tokens) in definitions(text.clone()) {
                self.node(module, owners, &name, method, tokens);
            }
            self.node(module, owners, "", None, text);
        }
    }

    fn node(&mut self, module: &[String], owners: &[String], name: &str, method: Option<bool>, tokens: TokenStream) {
        let mut flat = Vec::new();
        flatten(tokens, &mut flat);
        let (module, owners) = (module.to_vec(), owners.to_vec());
        self.graph.nodes.push(Node { module, owners, name: name.to_string(), method, tokens: flat });
    }

    fn type_of(&mut self, module: &[String], name: &str, fields: TokenStream) {
        let mut flat = Vec::new();
        flatten(fields, &mut flat);
        let mut contains = Vec::new();
        for at in 0..flat.len() {
            if let Token::Word(word) = &flat[at]
                && word.starts_with(char::is_uppercase)
                && !(at > 0 && flat[at - 1] == Token::Mark('&') || at > 2 && flat[at - 3] == Token::Mark('&'))
            {
                contains.push(word.clone());
            }
        }
        self.graph.types.entry(name.to_string()).or_default().push(Type { module: module.to_vec(), contains });
    }

    /// Whether an item exists on this machine, in a program.
    fn applies(&self, attributes: &[Attribute]) -> bool {
        attributes
            .iter()
            .filter(|attribute| attribute.path().is_ident("cfg"))
            .all(|attribute| attribute.parse_args::<Meta>().is_ok_and(|meta| self.holds(&meta)))
    }

    fn holds(&self, meta: &Meta) -> bool {
        let list = |list: &syn::MetaList| -> Vec<Meta> {
            let parse = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
            list.parse_args_with(parse).map(|all| all.into_iter().collect()).unwrap_or_default()
        };
        match meta {
            Meta::List(inner) if inner.path.is_ident("all") => list(inner).iter().all(|meta| self.holds(meta)),
            Meta::List(inner) if inner.path.is_ident("any") => list(inner).iter().any(|meta| self.holds(meta)),
            Meta::List(inner) if inner.path.is_ident("not") => !list(inner).iter().all(|meta| self.holds(meta)),
            Meta::NameValue(pair) => {
                let value = pair.value.to_token_stream().to_string();
                let value = value.trim_matches('"');
                let bits = self.cfg.bits.to_string();
                let endian = if self.cfg.big_endian { "big" } else { "little" };
                let key = pair.path.to_token_stream().to_string();
                match key.as_str() {
                    "target_arch" => value == self.cfg.arch,
                    "target_pointer_width" => value == bits,
                    "target_endian" => value == endian,
                    "target_os" => value == "linux",
                    _ => true, // A feature.
                }
            }
            _ => false, // test, loom, miri
        }
    }
}

/// The file that `#[path = "…"]` names.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => {
            Some(pair.value.to_token_stream().to_string().trim_matches('"').to_string())
        }
        _ => None,
    })
}

/// The names that a `use` brings, and what they stand for.
fn import(tree: &UseTree, path: &mut Vec<String>, names: &mut HashMap<String, Vec<String>>) {
    match tree {
        UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            import(&tree.tree, path, names);
            path.pop();
        }
        UseTree::Name(tree) => {
            let name = tree.ident.to_string();
            let mut full = path.clone();
            if name != "self" {
                full.push(name);
            }
            if let Some(last) = full.last().cloned() {
                names.insert(last, full);
            }
        }
        UseTree::Rename(tree) => {
            let mut full = path.clone();
            full.push(tree.ident.to_string());
            names.insert(tree.rename.to_string(), full);
        }
        UseTree::Group(tree) => tree.items.iter().for_each(|tree| import(tree, path, names)),
        _ => {} // A glob: its functions have the module in their path.
    }
}

/// The arms of a macro's definition: what is matched and what comes of it, as one text.
fn arms(definition: TokenStream) -> Vec<TokenStream> {
    let mut arms = Vec::new();
    let mut arm = TokenStream::new();
    for token in definition {
        let ends = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == ';');
        if ends {
            arms.push(std::mem::take(&mut arm));
        } else {
            arm.extend([token]);
        }
    }
    arms.push(arm);
    arms.retain(|arm| !arm.is_empty());
    arms
}

/// The first word that an arm matches, if it is one.
fn first_of(arm: &TokenStream) -> Option<String> {
    match arm.clone().into_iter().next() {
        Some(TokenTree::Group(pattern)) => match pattern.stream().into_iter().next() {
            Some(TokenTree::Ident(word)) => Some(word.to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// `fn name … { … }` and `const NAME … ;` anywhere in a text.
fn definitions(text: TokenStream) -> Vec<(String, Option<bool>, TokenStream)> {
    let tokens: Vec<TokenTree> = text.into_iter().collect();
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        if let TokenTree::Group(group) = &tokens[at] {
            found.extend(definitions(group.stream()));
        }
        let (TokenTree::Ident(keyword), Some(TokenTree::Ident(name))) = (&tokens[at], tokens.get(at + 1)) else {
            continue;
        };
        let is_end: fn(&TokenTree) -> bool = match keyword.to_string().as_str() {
            "fn" => |token| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace),
            "const" | "static" if *name != "fn" && *name != "unsafe" => {
                |token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ';')
            }
            _ => continue,
        };
        let end = (at..tokens.len()).find(|end| is_end(&tokens[*end])).unwrap_or(tokens.len() - 1);
        let parameters = tokens[at..=end].iter().find_map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => Some(group.stream()),
            _ => None,
        });
        let mut flat = Vec::new();
        flatten(parameters.unwrap_or_default(), &mut flat);
        let takes_self = *keyword == "fn" && flat.contains(&Token::Word("self".to_string()));
        let method = takes_self.then(|| flat.contains(&Token::Mark(',')));
        found.push((name.to_string(), method, tokens[at..=end].iter().cloned().collect()));
    }
    found
}

/// The last word of a path, before its parameters.
fn last_word(path: TokenStream) -> String {
    let mut last = String::new();
    for token in path {
        match token {
            TokenTree::Ident(word) => last = word.to_string(),
            TokenTree::Punct(mark) if mark.as_char() == '<' => break,
            _ => {}
        }
    }
    last
}

fn flatten(tokens: TokenStream, out: &mut Vec<Token>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) => out.push(Token::Word(word.to_string().trim_start_matches("r#").to_string())),
            TokenTree::Punct(mark) => out.push(Token::Mark(mark.as_char())),
            TokenTree::Literal(_) => out.push(Token::Mark('"')),
            TokenTree::Group(group) => {
                let bracket = match group.delimiter() {
                    Delimiter::Parenthesis => '(',
                    Delimiter::Brace => '{',
                    Delimiter::Bracket => '[',
                    Delimiter::None => ' ',
                };
                out.push(Token::Open(bracket, group.stream().is_empty()));
                flatten(group.stream(), out);
                out.push(Token::Close);
            }
        }
    }
}
