/* The browsers credentials seem to be. Consistent within a row: what one header says the others do not deny. */
#include "chatmux/base/crypto.h"
#include "chatmux/provider/run.h"

#define WINDOWS "Windows NT 10.0; Win64; x64"
#define MAC "Macintosh; Intel Mac OS X 10_15_7"
#define LINUX "X11; Linux x86_64"
#define CHROME(system, version, brands, platform, language)                                        \
    {CM_S_INIT("Mozilla/5.0 (" system ") AppleWebKit/537.36 (KHTML, like Gecko) Chrome/" version   \
               ".0.0.0 Safari/537.36"),                                                            \
     CM_S_INIT(brands), CM_S_INIT("\"" platform "\""), CM_S_INIT(language)}

#define BRANDS_142 "\"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\""
#define BRANDS_141 "\"Google Chrome\";v=\"141\", \"Not?A_Brand\";v=\"8\", \"Chromium\";v=\"141\""
#define BRANDS_140 "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\""

static const struct cm_browser browsers[] = {
    CHROME(WINDOWS, "142", BRANDS_142, "Windows", "en-US,en;q=0.9"),
    CHROME(MAC, "142", BRANDS_142, "macOS", "en-US,en;q=0.9"),
    CHROME(LINUX, "142", BRANDS_142, "Linux", "en-US,en;q=0.9"),
    CHROME(WINDOWS, "141", BRANDS_141, "Windows", "en-US,en;q=0.9"),
    CHROME(MAC, "141", BRANDS_141, "macOS", "en-GB,en;q=0.9"),
    CHROME(LINUX, "141", BRANDS_141, "Linux", "en-GB,en;q=0.9"),
    CHROME(WINDOWS, "140", BRANDS_140, "Windows", "en-GB,en;q=0.9"),
    CHROME(MAC, "140", BRANDS_140, "macOS", "en-US,en;q=0.9"),
};

/* By the secret and not by the id: a credential that is entered anew is the same person. */
const struct cm_browser *cm_run_browser(const struct cm_run *run)
{
    unsigned char digest[CM_SHA256_SIZE];

    cm_sha256(cm_run_cred(run)->secret, digest);
    return &browsers[digest[0] % CM_COUNT(browsers)];
}
