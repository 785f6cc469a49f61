/* Follows the brackets of a JSON text, wherever its pieces are cut. */
#include "whole_json.h"

void cm_whole_json_feed(struct cm_whole_json *w, struct cm_str piece)
{
    for (size_t i = 0; i < piece.n; i++) {
        const char ch = piece.p[i];

        if (w->escaped) {
            w->escaped = false;
        } else if (w->in_string) {
            w->escaped = ch == '\\';
            w->in_string = ch != '"';
        } else if (ch == '"') {
            w->in_string = true;
        } else if (ch == '{' || ch == '[') {
            w->depth++;
            w->any = true;
        } else if (ch == '}' || ch == ']') {
            w->depth--;
        }
    }
}

bool cm_whole_json_is(const struct cm_whole_json *w)
{
    return w->any && w->depth <= 0 && !w->in_string;
}
