/* The page that shows /openapi.json, compiled in. */
#include "chatmux/ui/docs.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/enc.h"

/* clang-format off */
static const struct cm_str style = CM_S_INIT(
"body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem 1.5rem 4rem;color:#1d2430;background:#fff}\n"
"h1{margin:1rem 0 0}h2{margin:2.5rem 0 .5rem;border-bottom:1px solid #d5dae3}\n"
"details{border:1px solid #d5dae3;border-radius:6px;margin:.4rem 0}\n"
"summary{cursor:pointer;padding:.4rem .7rem}summary span{color:#5b6678;margin-left:.8rem}\n"
"details>div{padding:0 1rem 1rem}\n"
"b{display:inline-block;width:4.2rem;font:600 12px ui-monospace,monospace}\n"
"b.get,b.head{color:#1668b8}b.post,b.put{color:#1a7f4b}b.patch{color:#9a6200}b.delete{color:#b3261e}\n"
"code,pre{font:13px/1.5 ui-monospace,monospace}pre{background:#f3f5f9;border-radius:6px;overflow:auto;padding:.6rem .8rem}\n"
"table{border-collapse:collapse;width:100%}td{border-top:1px solid #e4e8ef;padding:.2rem .8rem .2rem 0;vertical-align:top}\n"
"h3{font-size:14px;margin:1rem 0 .2rem}i{color:#b3261e;font-style:normal}p{color:#5b6678}\n"
"@media(prefers-color-scheme:dark){body{background:#14171d;color:#dde3ee}pre{background:#1f242d}details,h2{border-color:#333b48}"
"td{border-color:#2a313c}b.get,b.head{color:#6cb2f5}b.post,b.put{color:#62c58f}b.patch{color:#e0ab4c}b.delete,i{color:#f08078}}\n");

static const struct cm_str script = CM_S_INIT(
"const make = (tag, text = '', kind = '') => {\n"
"  const node = document.createElement(tag);\n"
"  node.textContent = text;\n"
"  node.className = kind;\n"
"  return node;\n"
"};\n"
"const add = (to, ...nodes) => (to.append(...nodes.filter(Boolean)), to);\n"
"const named = (ref) => ref.split('/').pop();\n"
"\n"
"function typeOf(s) {\n"
"  if (s.$ref) return named(s.$ref);\n"
"  if (s.allOf) return typeOf(s.allOf[0]);\n"
"  if (s.enum) return s.enum.map((v) => JSON.stringify(v)).join(' | ');\n"
"  const type = [s.type].flat().join(' or ');\n"
"  return s.items ? type.replace('array', 'array of ' + typeOf(s.items)) : s.format ? type + ' (' + s.format + ')' : type;\n"
"}\n"
"\n"
"function table(title, rows) {\n"
"  if (rows.length === 0) return null;\n"
"  const lines = rows.map(([name, schema, required]) => {\n"
"    const range = schema.maximum === undefined ? '' : ' (' + schema.minimum + ' to ' + schema.maximum + ')';\n"
"    const cell = add(make('td'), make('code', name), required ? make('i', ' *') : null);\n"
"    return add(make('tr'), cell, make('td', typeOf(schema) + range), make('td', schema.description || ''));\n"
"  });\n"
"  return add(make('div'), make('h3', title), add(make('table'), ...lines));\n"
"}\n"
"\n"
"/* The members of a schema, and of those it refers to. */\n"
"function members(api, title, schema, seen = []) {\n"
"  if (!schema) return null;\n"
"  if (schema.$ref) {\n"
"    const name = named(schema.$ref);\n"
"    return seen.includes(name) ? null : members(api, title + ': ' + name, api.components.schemas[name], [...seen, name]);\n"
"  }\n"
"  const rows = Object.entries(schema.properties || {});\n"
"  const box = add(make('div'), table(title, rows.map(([name, s]) => [name, s, (schema.required || []).includes(name)])));\n"
"  for (const [name, s] of rows) {\n"
"    const inner = s.items && s.items.$ref ? s.items : s.allOf && s.allOf[0];\n"
"    if (inner) add(box, members(api, name, inner, seen));\n"
"  }\n"
"  return box;\n"
"}\n"
"\n"
"function curl(api, method, path, op) {\n"
"  const base = location.origin + (api.servers[0].url === '/' ? '' : api.servers[0].url);\n"
"  const who = op.security.length === 0 ? '' : op.security[0].clientKey ? ' -H \"Authorization: Bearer $KEY\"' : ' -H \"Authorization: Bearer $ADMIN_SECRET\"';\n"
"  const body = op.requestBody ? \" \\\\\\n  -H 'Content-Type: application/json' -d '{…}'\" : '';\n"
"  return 'curl ' + (method === 'get' ? '' : method === 'head' ? '-I ' : '-X ' + method.toUpperCase() + ' ') + base + path + who + body;\n"
"}\n"
"\n"
"function operation(api, method, path, op) {\n"
"  const box = make('details');\n"
"  const body = op.requestBody && op.requestBody.content['application/json'].schema;\n"
"  const good = Object.entries(op.responses).find(([status]) => status !== 'default');\n"
"  const answer = good[1].content && good[1].content['application/json'];\n"
"  add(box, add(make('summary'), make('b', method.toUpperCase(), method), make('code', path), make('span', op.summary)));\n"
"  box.addEventListener('toggle', () => {\n"
"    if (!box.open || box.lastChild.tagName === 'DIV') return;\n"
"    add(box, add(make('div'), make('pre', curl(api, method, path, op)),\n"
"      table('Parameters', (op.parameters || []).map((p) => [p.name, p.schema, p.required])),\n"
"      members(api, 'Body', body), members(api, 'Answer ' + good[0], answer && answer.schema)));\n"
"  });\n"
"  return box;\n"
"}\n"
"\n"
"async function show() {\n"
"  const page = document.querySelector('main');\n"
"  try {\n"
"    const api = await (await fetch(location.pathname.replace(/\\/(docs|swagger\\/index\\.html)\\/?$/, '') + '/openapi.json')).json();\n"
"    const groups = new Map();\n"
"    for (const [path, methods] of Object.entries(api.paths))\n"
"      for (const [method, op] of Object.entries(methods)) {\n"
"        if (!groups.has(op.tags[0])) groups.set(op.tags[0], []);\n"
"        groups.get(op.tags[0]).push(operation(api, method, path, op));\n"
"      }\n"
"    page.replaceChildren(make('h1', api.info.title + ' ' + api.info.version), make('p', api.info.description));\n"
"    for (const [tag, nodes] of groups) add(page, make('h2', tag), ...nodes);\n"
"  } catch (error) {\n"
"    page.replaceChildren(make('p', 'openapi.json cannot be read: ' + error.message));\n"
"  }\n"
"}\n"
"show();\n");
/* clang-format on */

static void put_hash(struct cm_buf *out, const char *directive, struct cm_str text)
{
    unsigned char hash[CM_SHA256_SIZE];

    cm_sha256(text, hash);
    cm_buf_printf(out, "; %s 'sha256-", directive);
    cm_base64(out, cm_str((const char *)hash, sizeof(hash)));
    cm_buf_put(out, '\'');
}

void cm_ui_docs(struct cm_buf *out)
{
    cm_buf_append(
        out,
        CM_S(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; connect-src 'self'"));
    put_hash(out, "style-src", style);
    put_hash(out, "script-src", script);
    cm_buf_append(
        out, CM_S("; base-uri 'none'; form-action 'none'\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                  "<link rel=\"icon\" href=\"data:,\">\n<title>chatmux: routes</title>\n<style>"));
    cm_buf_append(out, style);
    cm_buf_append(
        out,
        CM_S(
            "</style>\n</head>\n<body>\n<main><p>The routes stand in openapi.json; this page shows them "
            "with JavaScript.</p></main>\n<script>"));
    cm_buf_append(out, script);
    cm_buf_append(out, CM_S("</script>\n</body>\n</html>\n"));
}
