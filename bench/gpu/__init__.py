"""What bench/gpu_day.py and bench/gpu_profile.py run: plan.py lists the sections, sections/ holds them."""
