//! What there is to buy: generated, the same on every start.

use std::sync::Arc;

use ringway_proto::shop::v1::Product;

const ADJECTIVES: [&str; 10] = [
    "Copper", "Folding", "Quiet", "Little", "Walnut", "Northern", "Enamel", "Travel", "Linen",
    "Everyday",
];
const NOUNS: [&str; 20] = [
    "Kettle", "Lamp", "Chair", "Notebook", "Teapot", "Blanket", "Clock", "Radio", "Backpack",
    "Bowl", "Knife", "Stool", "Mirror", "Basket", "Umbrella", "Vase", "Tray", "Scarf", "Bottle",
    "Shelf",
];

/// All products, by ids from 1 without gaps.
#[derive(Clone, Debug)]
pub struct Products {
    entries: Arc<[Entry]>,
}

/// A product, its description apart: most callers do without.
#[derive(Debug)]
pub(crate) struct Entry {
    brief: Product,
    description: String,
    /// What a search looks through.
    words: String,
}

impl Entry {
    pub(crate) fn without_description(&self) -> Product {
        self.brief.clone()
    }

    pub(crate) fn description(&self) -> &str {
        &self.description
    }
}

impl Products {
    /// `count` products that depend on nothing but their ids.
    #[must_use]
    pub fn generate(count: u32) -> Self {
        Self {
            entries: (1..=count).map(entry).collect(),
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    /// Up to `limit` products behind `after` that match, made as they are asked for.
    pub(crate) fn page(
        &self,
        after: u32,
        limit: usize,
        search: String,
    ) -> impl Iterator<Item = Product> + Send + use<> {
        let entries = Arc::clone(&self.entries);
        let search = search.to_lowercase();
        let start = usize::try_from(after).unwrap_or(usize::MAX);
        (start..entries.len())
            .filter_map(move |index| {
                let entry = &entries[index];
                entry
                    .words
                    .contains(&search)
                    .then(|| entry.without_description())
            })
            .take(limit)
    }
}

fn entry(id: u32) -> Entry {
    let dice = id.wrapping_mul(2_654_435_761);
    let pick = |words: &[&'static str], divisor: u32| {
        words[usize::try_from(dice / divisor).unwrap_or(0) % words.len()]
    };
    let (adjective, noun) = (pick(&ADJECTIVES, 7), pick(&NOUNS, 1013));
    let brief = Product {
        id,
        sku: format!("{}-{id:05}", &noun[..3].to_uppercase()),
        name: format!("{adjective} {noun} No. {id}"),
        description: String::new(),
        price_cents: 199 + (dice >> 8) % 24_800,
        weight_grams: 40 + (dice >> 12) % 7_960,
        picture: id,
    };
    let description = format!(
        "The {} {} is made to be used daily and repaired when needed. Weighs {} g. \
         Sent within two working days; can be given back for thirty days.",
        adjective.to_lowercase(),
        noun.to_lowercase(),
        brief.weight_grams
    );
    let words = format!("{} {}", brief.name, brief.sku).to_lowercase();
    Entry {
        brief,
        description,
        words,
    }
}
