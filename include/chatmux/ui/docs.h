/* The page that shows /openapi.json: one HTML text with its own style and script, which fetches nothing but that document. */
#ifndef CHATMUX_UI_DOCS_H
#define CHATMUX_UI_DOCS_H

#include "chatmux/base/buf.h"

/* Appends the page. Its policy names the hashes of its style and script, so that no browser runs anything else. */
void cm_ui_docs(struct cm_buf *out);

#endif
