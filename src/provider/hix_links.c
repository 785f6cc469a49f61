/* hix: sources of a searched answer. How the platform delivers its results is UNKNOWN; what is known is that answers name them as links in their text
 * (HIX protocol notes, section 3.4). Those become annotations, with the place where they stand. */
#include "hix_int.h"

#include "chatmux/base/utf8.h"

#define LINKS_MAX 50
#define LOOKS_MAX 1000 /* places where one may stand */
#define TITLE_MAX 300  /* bytes: what is longer is no title */
#define ADDRESS_MAX 2048

struct link {
    struct cm_str title, url;
    size_t from, to; /* bytes of the text */
};

static bool is_address(struct cm_str url)
{
    return cm_str_starts_nocase(url, CM_S("http://")) ||
           cm_str_starts_nocase(url, CM_S("https://"));
}

/* The opening bracket of the one that closes at `end`; SIZE_MAX: there is none near. */
static size_t opening(struct cm_str text, size_t end)
{
    const size_t first = end > TITLE_MAX ? end - TITLE_MAX : 0;
    size_t depth = 0;

    for (size_t i = end; i > first; i--) {
        if (text.p[i - 1] == ']')
            depth++;
        else if (text.p[i - 1] == '[' && depth-- == 0)
            return i - 1;
    }
    return SIZE_MAX;
}

/* The parenthesis that closes an address; addresses hold pairs of their own. */
static size_t closing(struct cm_str rest)
{
    size_t depth = 0;

    for (size_t i = 0; i < rest.n; i++) {
        if ((unsigned char)rest.p[i] <= ' ')
            return SIZE_MAX;
        if (rest.p[i] == '(')
            depth++;
        else if (rest.p[i] == ')' && depth-- == 0)
            return i;
    }
    return SIZE_MAX;
}

/* The next [title](address) from *at on; a picture is none. */
static bool next_link(struct cm_str text, size_t *at, unsigned *looks, struct link *out)
{
    while (++*looks < LOOKS_MAX) {
        const size_t found = cm_str_find(cm_str_from(text, *at), CM_S("]("));
        const size_t middle = *at + found, open = found == SIZE_MAX ? 0 : opening(text, middle);
        struct cm_str rest;
        size_t end;

        if (found == SIZE_MAX)
            return false;
        *at = middle + 2;
        rest = cm_str_head(cm_str_from(text, *at), ADDRESS_MAX);
        end = closing(rest);
        if (open == SIZE_MAX || end == SIZE_MAX || !is_address(cm_str_head(rest, end)) ||
            (open > 0 && text.p[open - 1] == '!'))
            continue;
        *out = (struct link){.title = cm_str(text.p + open + 1, middle - open - 1),
                             .url = cm_str_head(rest, end),
                             .from = open,
                             .to = *at + end + 1};
        *at = out->to;
        return true;
    }
    return false;
}

void hix_tell_links(struct cm_run *run, struct cm_str text)
{
    struct cm_str told[LINKS_MAX];
    struct link link;
    int64_t chars = 0;
    unsigned looks = 0;
    size_t at = 0, counted = 0, n = 0;

    while (n < LINKS_MAX && next_link(text, &at, &looks, &link)) {
        bool again = false;
        int64_t from;

        for (size_t i = 0; i < n; i++)
            again |= cm_str_eq(told[i], link.url);
        if (again)
            continue;
        from = chars + (int64_t)cm_utf8_count(cm_str(text.p + counted, link.from - counted));
        chars = from + (int64_t)cm_utf8_count(cm_str(text.p + link.from, link.to - link.from));
        counted = link.to;
        told[n++] = link.url;
        cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_CITATION,
                                            .url = link.url,
                                            .name = link.title,
                                            .from = from,
                                            .to = chars});
    }
}
