/* How a transfer failed, in words an operator can act on: who was asked, and why it did not work. No URL, no user name, no secret. */
#include "httpc_int.h"

#include <openssl/x509.h>

static const char *verify_reason(const struct cm_xfer *x)
{
    long result = X509_V_OK;

    (void)curl_easy_getinfo(x->easy->curl, CURLINFO_SSL_VERIFYRESULT, &result);
    if (result == X509_V_OK || result == X509_V_ERR_UNSPECIFIED)
        return "it is for another name"; /* libcurl compares names itself, before it looks at this result */
    return X509_verify_cert_error_string(result);
}

static const char *os_reason(const struct cm_xfer *x, const char *otherwise)
{
    long err = 0;

    (void)curl_easy_getinfo(x->easy->curl, CURLINFO_OS_ERRNO, &err);
    return err != 0 ? strerror((int)err) : otherwise;
}

static void describe(const struct cm_xfer *x, CURLcode rc, char *out, size_t cap)
{
    long connect_code = 0;

    switch ((
        int)rc) { /* libcurl has many more; those that need no better words than its own are left to it */
    case CURLE_COULDNT_CONNECT:
        (void)snprintf(out, cap, "cannot connect: %s", os_reason(x, "no address answered"));
        return;
    case CURLE_GOT_NOTHING:
        (void)snprintf(out, cap, "the connection was closed without an answer");
        return;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
        (void)curl_easy_getinfo(x->easy->curl, CURLINFO_HTTP_CONNECTCODE, &connect_code);
        if (connect_code >= 300)
            (void)snprintf(out, cap, "the proxy refused with status %ld", connect_code);
        else
            (void)snprintf(out, cap, "the connection broke: %s",
                           os_reason(x, "closed by the other side"));
        return;
    case CURLE_PARTIAL_FILE:
        (void)snprintf(out, cap, "the connection was closed before the end of the answer");
        return;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        (void)snprintf(out, cap, "the answer is not valid HTTP");
        return;
    case CURLE_PEER_FAILED_VERIFICATION:
        (void)snprintf(out, cap, "its certificate is not trusted: %s", verify_reason(x));
        return;
    case CURLE_OK:
        (void)snprintf(out, cap, "there was no answer");
        return;
    default:
        (void)snprintf(out, cap, "%s", curl_easy_strerror(rc));
    }
}

void hc_describe(const struct cm_xfer *x, CURLcode rc, struct cm_err *err)
{
    char why[120], via[80] = "";
    enum cm_err_class cls = x->head_done ? CM_ERR_CUT : CM_ERR_UPSTREAM_DOWN;

    if (x->not_public) {
        cm_fail(err, CM_ERR_BAD_REQUEST, CM_PRI " has no public address: not fetched",
                CM_ARG(x->to.host));
        return;
    }
    if (x->via.host.n > 0)
        (void)snprintf(via, sizeof(via), " through " CM_PRI ":%u",
                       CM_ARG(cm_str_head(x->via.host, 60)), x->via.port);
    if (x->head_too_large) {
        (void)snprintf(why, sizeof(why), "the head of the answer has more than %zu bytes",
                       x->req.max_head_bytes ? x->req.max_head_bytes : (size_t)HC_HEAD_BYTES);
    } else if (rc == CURLE_OPERATION_TIMEDOUT) {
        if (!x->head_done)
            cls = CM_ERR_TIMEOUT;
        (void)snprintf(why, sizeof(why), "no connection within %lld ms",
                       (long long)x->req.connect_timeout_ms);
    } else {
        describe(x, rc, why, sizeof(why));
    }
    cm_fail(err, cls, CM_PRI ":%u%s: %s", CM_ARG(cm_str_head(x->to.host, 80)), x->to.port, via,
            why);
}
