// SPDX-License-Identifier: Apache-2.0

/// A file with fixed bytes: what reads it today must read it always.
///
/// It was written by another implementation of sops's format than the one in these tests (Python,
/// over libcrypto), so that a mistake in both writer and reader here cannot hide. The key protects
/// nothing.
enum Vector {
    static let identity =
        "AGE-SECRET-KEY-1R6FCY8MNR3XFZYJT259TSASFNF8P9J3SK0VHL9VCDMQX750ZYJPQ4THNNM"

    // swift-format-ignore
    static let yaml = #"""
        dns:
            token: ENC[AES256_GCM,data:8SfR1cSpFAN7ZLLOrw==,iv:xrcmIGNZx2HRUvmIC59vUJM0+LRT1iV55UOA2W6OM8M=,tag:gM8nfjCUbr+PvkWzoeVuZw==,type:str]
            port: ENC[AES256_GCM,data:qxAVsw==,iv:JB/70YEzVrItmty2q8xWc4YLsns2WKjZEQXfLLrL4bM=,tag:a21sKkdz9pyiDRwGDuPpdA==,type:int]
            ratio: ENC[AES256_GCM,data:2tSWqA==,iv:Bf74lJyLYmWZ9FuKEcj7yVOYq6eABbnRydaryasZSfY=,tag:M9wZB0AbL30GxceQ6+INaw==,type:float]
            enabled: ENC[AES256_GCM,data:pIT8EA==,iv:vPL9+bwSNKJ9exmlKTjuBSBcS7oHkCeyMoazWuoBLPc=,tag:ztcjYe2TMY5+ZLMfITzcrQ==,type:bool]
            empty: ""
        list:
            - ENC[AES256_GCM,data:UIIFXY8=,iv:XpRArMOnIRlns4pWb3mlrTcjt3Nke2K85n9hwXTBtVc=,tag:puETjg8f5R6l+DLLa8QBEQ==,type:str]
            - name: ENC[AES256_GCM,data:PqSVlXIG,iv:OAy4z+Qi+TLpWeruzpRjCXA0rgsv18ISrMzNA9YPIHo=,tag:6yRKNpn0GMwfExsJflxQvg==,type:str]
        # ENC[AES256_GCM,data:1MjjTguSHunx,iv:VglZMOdxF76BJiH7r5okFxmux8/3MJRLb5yaGyhorkE=,tag:witMJZpLqTdjjbApv4ShfA==,type:comment]
        lines: ENC[AES256_GCM,data:xP+NiIJWyoU=,iv:EeKP6Bb9kQPTjmMeJzTqDiSo7cHtClhnK/fmS7L6sqE=,tag:FaFcpYMQAZemML1Pk3G2/g==,type:str]
        plain_unencrypted:
            port: 0xA
            on: true
            ratio: 1.50
            none: null
        umlaut-ü: ENC[AES256_GCM,data:GHo=,iv:8IMoKvo8qposnaJ69UzAkrVRXmrhcyiAm2iu16lom/c=,tag:YK9srO3jEw8M3MRjKNHoyA==,type:str]
        sops:
            age:
                - recipient: age1yu48wzltsknjqwdjj6k4tm8p390dehvum2gq648mf7slnxgpr4sqdnug98
                  enc: |
                    -----BEGIN AGE ENCRYPTED FILE-----
                    YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBQVVY0aFI1NnNpdStIbGNC
                    T0ZFOEdlUnRjSUIzUXVNSndreXh6Um5xSmh3Ci92TjhZd016VU1oQVpkeHNqdVla
                    L1dwUUpOZlM3cFBISTMreXlWVGxyUDQKLS0tIG1saVdTazYvbmZBRGNlWmIwZDVy
                    czhLTk9GOWtlZVZ5SThjWCtEcWR4UEkKlMW3505npuoj5o+cOxGGKZcm3Zot/xQY
                    71GKKpzTRFhMt21LfMG0uVvaKNu/1BPXeLuSX0JQe7ExO9tX7+k2bw==
                    -----END AGE ENCRYPTED FILE-----
            lastmodified: "2026-01-02T03:04:05Z"
            mac: ENC[AES256_GCM,data:3lBU/osIPudcnOCWgXngorbpnHuzIyBheoed0wz0bwU3sllJpQeGj5VlS7Eh8HqA9OE/XckOOCt7j6pwSEoWnnSDW9zz5SFVuxPAYeeZ5clT/e/wPIggnuMR5OV4o/bG7mH2u2UM5Z6dKydcRpTfjzweEJrHzr8/C4D1UW59VZY=,iv:UDpgPHyhHzYR94sPF8LUe6Px5+hZbVwK9aPOfOBNzFU=,tag:a3I99LsktpigqpU68kIkOA==,type:str]
            unencrypted_suffix: _unencrypted
            version: 3.10.2
        """#
}
