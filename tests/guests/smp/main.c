// Several processors: start-up, IPIs, interrupt routing, and what they see of each other.
#include "smp.h"

void guest_main(void);

// Ends in a triple fault of the last processor.
static void job_crash(struct cpu *c)
{
    (void)c;
    idt_set_limit(15);
    __asm__ volatile("int3");
}

void guest_main(void)
{
    struct verdict v = {.guest = "smp"};
    console_init();
    traps_init();
    pic_init();
    pit_stop();
    check_tables(&v);
    cpus_init();
    check_start(&v);
    if (option_word("crash")) {
        run_on(cpu_count - 1, job_crash, 0);
        for (;;)
            pause();
    }
    check_ipis(&v);
    check_ioapic(&v);
    check_memory(&v);
    check_x2apic(&v);
    check_memory(&v);
    verdict_exit(&v);
}
