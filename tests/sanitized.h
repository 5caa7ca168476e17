/* Whether a test was built with AddressSanitizer, which is slow and whose own memory counts in what a process takes. */
#ifndef CMC_TESTS_SANITIZED_H
#define CMC_TESTS_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
#else
enum { SANITIZED = 0 };
#endif
#endif
