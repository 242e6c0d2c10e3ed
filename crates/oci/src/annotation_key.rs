/// The scheme and host of the project's repository. The rest of its address is `OWNER/REPOSITORY`.
const SERVER: &str = "https://github.com/";

/// The domain that GitHub gives to an owner, reversed: `io.github.OWNER`.
const DOMAIN: &str = "io.github.";

/// Composes the key of an annotation that this project defines: `io.github.OWNER.REPOSITORY.NAME`.
///
/// [Keys](https://github.com/opencontainers/image-spec/blob/v1.1.0/annotations.md#rules) are in reverse domain notation.
/// This domain belongs to the owner of the repository that the workspace's `Cargo.toml` names, so nobody else can define
/// a key below it.
#[macro_export]
macro_rules! annotation_key {
    ($name:literal) => {{
        const ADDRESS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/", $name);
        const KEY: [u8; $crate::reversed_length(ADDRESS)] = $crate::reversed(ADDRESS);
        match str::from_utf8(&KEY) {
            Ok(key) => key,
            Err(_) => panic!("the address of the repository is not UTF-8"),
        }
    }};
}

/// Returns the length of the key for an address.
#[doc(hidden)]
pub const fn reversed_length(address: &str) -> usize {
    DOMAIN.len() + address.len() - SERVER.len()
}

/// Returns the key for an address below [`SERVER`], whose parts become words.
#[doc(hidden)]
pub const fn reversed<const LENGTH: usize>(address: &str) -> [u8; LENGTH] {
    let (address, server, domain) = (address.as_bytes(), SERVER.as_bytes(), DOMAIN.as_bytes());
    let mut index = 0;
    while index < server.len() {
        assert!(address[index] == server[index], "the repository is on another server");
        index += 1;
    }
    let mut key = [0; LENGTH];
    index = 0;
    while index < LENGTH {
        key[index] = if index < domain.len() { domain[index] } else { address[index - domain.len() + server.len()] };
        if key[index] == b'/' {
            key[index] = b'.';
        }
        index += 1;
    }
    key
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_key_lies_below_the_owner_of_the_repository() {
        let repository = env!("CARGO_PKG_REPOSITORY").strip_prefix("https://github.com/").unwrap_or_default();
        let expected = format!("io.github.{}.record.kind", repository.replace('/', "."));
        assert_eq!(annotation_key!("record.kind"), expected);
    }
}
