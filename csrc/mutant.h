// A line with one way to get it wrong, which a test must notice: tests/mutants_of_csrc.py, CONTRIBUTING.md.
//
// MUTANT(n, wrong, right) is `right`, and nothing else is compiled, unless FASTPOP_MUTANT=n is built.
#pragma once

#ifdef FASTPOP_MUTANT
#define MUTANT(n, wrong, right) (FASTPOP_MUTANT == (n) ? (wrong) : (right))
#else
#define MUTANT(n, wrong, right) (right)
#endif
