//! `#[derive(Encode, Decode)]` for structs whose SCALE form is their fields one after the other (types.md section 1.2), which
//! is nearly every object of the network. What is otherwise (tagged unions, raw integers) implements the traits of
//! `proto::scale` by hand.
//!
//! A byte string or a list has a limit that belongs to the field: `#[scale(max = 800)]`. Without the attribute such a field
//! does not compile, so no limit can be forgotten.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Data, DeriveInput, Expr, Fields, Index, Member, Type, parse_macro_input};

/// A field: how it is called, its type and the limit of its elements.
struct Field {
    member: Member,
    ty: Type,
    max: Option<Expr>,
}

fn fields(input: &DeriveInput) -> syn::Result<Vec<Field>> {
    let Data::Struct(data) = &input.data else {
        return Err(syn::Error::new_spanned(input, "only structs are a plain sequence of fields"));
    };
    if matches!(data.fields, Fields::Unit) || !input.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(input, "only structs with fields and without parameters are supported"));
    }
    let field = |(index, field): (usize, &syn::Field)| {
        let mut max = None;
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("scale")) {
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("max") {
                    return Err(meta.error("expected `max = limit`"));
                }
                max = Some(meta.value()?.parse()?);
                Ok(())
            })?;
        }
        let member = field.ident.clone().map_or_else(|| Member::Unnamed(Index::from(index)), Member::Named);
        Ok(Field { member, ty: field.ty.clone(), max })
    };
    data.fields.iter().enumerate().map(field).collect()
}

fn expand(input: &DeriveInput, body: impl FnOnce(&[Field]) -> Tokens, role: &Tokens) -> TokenStream {
    let name = &input.ident;
    match fields(input) {
        Ok(fields) => {
            let body = body(&fields);
            quote! { impl ::proto::scale::#role for #name { #body } }.into()
        }
        Err(error) => error.to_compile_error().into(),
    }
}

/// Writes the fields in the order of their declaration.
#[proc_macro_derive(Encode, attributes(scale))]
pub fn derive_encode(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let body = |fields: &[Field]| {
        let steps = fields.iter().map(|Field { member, max, .. }| {
            if let Some(max) = max {
                quote! { ::proto::scale::EncodeLimited::encode_limited(&self.#member, #max, to)?; }
            } else {
                quote! { ::proto::scale::Encode::encode(&self.#member, to)?; }
            }
        });
        quote! {
            fn encode(&self, to: &mut ::proto::scale::Writer) -> ::core::result::Result<(), ::proto::scale::EncodeError> {
                #(#steps)*
                ::core::result::Result::Ok(())
            }
        }
    };
    expand(&input, body, &quote!(Encode))
}

/// Reads the fields in the order of their declaration.
#[proc_macro_derive(Decode, attributes(scale))]
pub fn derive_decode(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let body = |fields: &[Field]| {
        let least = fields.iter().map(|Field { ty, max, .. }| {
            // of a list, the count
            if max.is_some() { quote!(1) } else { quote!(<#ty as ::proto::scale::Decode>::MIN_BYTES) }
        });
        let steps = fields.iter().map(|Field { member, max, .. }| {
            if let Some(max) = max {
                quote! { #member: ::proto::scale::DecodeLimited::decode_limited(#max, from)? }
            } else {
                quote! { #member: ::proto::scale::Decode::decode(from)? }
            }
        });
        quote! {
            const MIN_BYTES: usize = 0 #(+ #least)*;

            fn decode(
                from: &mut ::proto::scale::Reader<'_>,
            ) -> ::core::result::Result<Self, ::proto::scale::DecodeError> {
                // fields of a literal are evaluated in the order in which they stand
                ::core::result::Result::Ok(Self { #(#steps),* })
            }
        }
    };
    expand(&input, body, &quote!(Decode))
}
