// SPDX-License-Identifier: Apache-2.0
// What Martlet uses of libexpat, loaded when a document is read: only `import libvirt` reads XML,
// and linked, the library would cost every start of martlet.
#pragma once
#include <expat.h>

#define ML_EXPAT_FUNCTIONS(X) \
    X(XML_ParserCreate) X(XML_ParserFree) X(XML_SetUserData) X(XML_SetElementHandler) \
    X(XML_SetCharacterDataHandler) X(XML_SetStartDoctypeDeclHandler) X(XML_Parse) \
    X(XML_StopParser) X(XML_GetErrorCode) X(XML_ErrorString) X(XML_GetCurrentLineNumber) \
    X(XML_GetCurrentColumnNumber)

#define ML_MEMBER(function) __typeof__(&function) _Nonnull function;
struct ml_expat { ML_EXPAT_FUNCTIONS(ML_MEMBER) };
#undef ML_MEMBER

/// The functions of libexpat, or NULL where it is not installed.
const struct ml_expat *_Nullable ml_expat(void);
