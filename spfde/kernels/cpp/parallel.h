// Work on several threads: parts that are fixed beforehand, so that sums do not depend on timing.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

// `GOMP_parallel` of the OpenMP library that torch has loaded, where there is one. Borrowing torch's threads avoids a
// second pool: idle threads of OpenMP spin for a while, and two pools would take the cores from each other.
typedef void (*StartTeam)(void (*)(void*), void*, unsigned, unsigned);
inline StartTeam start_team = nullptr;
inline pid_t team_process = 0;

template <class Work>
struct Job {
    Work* work;
    int parts;
    std::atomic<int> next;

    static void run(void* self) {
        Job& job = *static_cast<Job*>(self);
        for (int part; (part = job.next.fetch_add(1)) < job.parts;) (*job.work)(part);
    }
};

// Calls work(part) for part = 0 .. parts - 1, each once, on up to as many threads; a single part runs right here and
// touches no thread library. Which thread takes which part does not matter to the result. A forked child has none of
// its parent's threads, and OpenMP would wait for them for ever: there the parts run one after the other.
template <class Work>
void parallel(int parts, Work&& work) {
    if (parts == 1) return work(0);
    Job<typename std::remove_reference<Work>::type> job{&work, parts, {0}};
    if (start_team && getpid() == team_process) {
        start_team(job.run, &job, parts, 0);
    } else if (start_team) {
        job.run(&job);
    } else {
        std::vector<std::thread> others;
        for (int i = 1; i < parts; i++) others.emplace_back(job.run, &job);
        job.run(&job);
        for (std::thread& other : others) other.join();
    }
}

struct Range {
    int begin, end;
};

// The part-th of `parts` nearly equal ranges of 0 .. count.
inline Range share(long count, int part, int parts) {
    return {int(count * part / parts), int(count * (part + 1) / parts)};
}

constexpr size_t HUGE_PAGE = 2 << 20;

// Memory of whole huge pages (fewer misses of the address cache: up to 10 % of a step).
inline float* allocate(size_t floats) {
    size_t bytes = (floats * sizeof(float) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void* memory = aligned_alloc(HUGE_PAGE, bytes);
    if (!memory) throw std::bad_alloc();
#if defined(__linux__)
    madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return static_cast<float*>(memory);
}

// A buffer of the calling thread that grows when it must, and goes when the thread does.
struct Scratch {
    float* memory = nullptr;
    size_t size = 0;

    float* get(size_t floats) {
        if (size < floats) {
            free(memory);
            memory = allocate(floats);
            size = floats;
        }
        return memory;
    }

    ~Scratch() { free(memory); }
};
